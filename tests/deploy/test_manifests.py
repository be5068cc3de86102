"""The Kubernetes manifests: rendered, valid for every version, and held to the rules of a cluster."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from serving import ROOT

KUBERNETES = ROOT / "deploy/kubernetes"
FOLDERS = ("base", "overlays/dev", "overlays/prod", "examples")
# Of cert-manager and of Prometheus' operator: no schema here, checked below by hand.
CUSTOM = {"Issuer", "Certificate", "ServiceMonitor", "PrometheusRule"}
POD_FIELDS = {"Pod": ("spec",), "StatefulSet": ("spec", "template", "spec"), "Job": ("spec", "template", "spec")}
SERVICES = ("ratequant-allocator", "ratequant-worker")


@functools.cache
def rendered(folder: str) -> tuple[dict, ...]:
    """The resources of a kustomization, as kubectl makes them."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl (with kustomize 5)")
    run = subprocess.run(["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not run.stderr, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


def find(folder: str, kind: str, name: str | None = None) -> dict:
    (found,) = [r for r in rendered(folder) if r["kind"] == kind and name in (None, r["metadata"]["name"])]
    return found


def pods(folder: str) -> dict[str, dict]:
    """Pod specs by what makes them."""
    found = {}
    for resource in rendered(folder):
        if resource["kind"] in POD_FIELDS:
            spec = resource
            for field in POD_FIELDS[resource["kind"]]:
                spec = spec[field]
            found[resource["metadata"]["name"]] = spec
    assert found
    return found


def containers(folder: str) -> list[tuple[str, dict]]:
    """Every container of a folder with a name for messages."""
    return [
        (f"{owner}/{container['name']}", container)
        for owner, pod in pods(folder).items()
        for container in [*pod.get("initContainers", ()), *pod["containers"]]
    ]


@pytest.mark.parametrize("version", all_versions())
@pytest.mark.parametrize("folder", FOLDERS)
def test_valid_for_every_version(folder, version):
    kinds = set()
    for resource in rendered(folder):
        if resource["kind"] not in CUSTOM:
            kubernetes_validate.validate(resource, version, strict=True)
            kinds.add(resource["kind"])
    assert len(kinds) >= 3


def test_a_wrong_field_is_found():
    resource = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [], "hostNetwrk": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(resource, all_versions()[-1], strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pod_has_root_a_token_or_the_hosts_namespaces(folder):
    for name, pod in pods(folder).items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] != "default", name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_container_is_locked_down_and_bounded(folder):
    for name, container in containers(folder):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys(), name


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_image_is_pinned(folder):
    for name, container in containers(folder):
        image = container["image"]
        assert "@sha256:" in image or re.search(r":[0-9][\w.-]*$", image), f"{name}: {image}"
        assert image.split(":")[-1] != "latest", name
        assert "/" in image, f"{name}: {image} names no registry"


def test_images_have_the_version_of_the_build():
    version = re.search(r"project\(ratequant VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    for folder in FOLDERS:
        for name, container in containers(folder):
            if "ratequant" in container["image"]:
                assert container["image"].endswith(f":{version}"), f"{folder}: {name}"


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_services_are_probed_where_mtls_is_not_asked(folder):
    for name in SERVICES:
        (container,) = pods(folder)[name]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        health = next(a for a in container["args"] if a.startswith("--health-address="))
        assert health.endswith(f":{ports['health']}")
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["grpc"]["port"] == ports["health"] != ports["grpc"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_pods_may_take_as_long_to_end_as_the_services_need(folder):
    for name in SERVICES:
        pod = pods(folder)[name]
        arguments = dict(a.split("=", 1) for a in pod["containers"][0]["args"] if "=" in a)
        needed = float(arguments["--drain-delay"]) + float(arguments["--shutdown-grace"])
        assert pod["terminationGracePeriodSeconds"] > needed


@functools.cache
def flags_of(program: str, *verbs: str) -> frozenset[str]:
    """The flags that a program of this build has."""
    command = [ROOT / "build/bin" / program, *verbs, "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"--[a-z][a-z-]*", text))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_flag_is_one_of_the_built_programs(folder):
    checked = 0
    for name, container in containers(folder):
        image = container["image"].split("/")[-1].split(":")[0]
        if not image.startswith("ratequant"):
            continue
        program = Path(container.get("command", [image.removesuffix("-cuda")])[0]).name
        verbs = [a for a in container["args"] if not a.startswith("-")]
        known = flags_of(program) | (flags_of(program, *verbs) if verbs else frozenset())
        for argument in container["args"]:
            if argument.startswith("-"):
                assert argument.split("=")[0] in known, f"{name}: {argument}"
                checked += 1
    assert checked > 5


def test_every_mounted_path_that_flags_name_is_mounted():
    for folder in FOLDERS[:3]:
        for name in SERVICES:
            (container,) = pods(folder)[name]["containers"]
            mounts = [m["mountPath"] for m in container["volumeMounts"]]
            for argument in container["args"]:
                value = argument.partition("=")[2]
                if value.startswith("/"):
                    assert any(value == m or value.startswith(m + "/") for m in mounts), argument


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_what_is_not_allowed_is_denied(folder):
    policies = [r for r in rendered(folder) if r["kind"] == "NetworkPolicy"]
    deny = next(p["spec"] for p in policies if p["metadata"]["name"] == "default-deny")
    assert deny["podSelector"] == {} and set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny and "egress" not in deny
    for policy in policies:
        for rule in [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]:
            assert rule.get("ports") and (rule.get("from") or rule.get("to")), policy["metadata"]["name"]


def selects(selector: dict, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    expressions = selector.get("matchExpressions", ())
    assert all(e["operator"] == "In" for e in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(e["key"]) in e["values"] for e in expressions
    )


def passes(
    folder: str, direction: str, pod: dict[str, str], other: dict[str, str], port: str, namespace: dict[str, str] | None
) -> bool:
    """Whether the policies of `pod` let a connection from ("ingress") or to ("egress") `other` pass, whose
    namespace has these labels; None: it is the policies' own."""

    def meant(peer: dict) -> bool:
        if ("namespaceSelector" in peer) != (namespace is not None):
            return False
        return selects(peer.get("namespaceSelector", {}), namespace or {}) and selects(peer.get("podSelector", {}), other)

    specs = (r["spec"] for r in rendered(folder) if r["kind"] == "NetworkPolicy")
    rules = [rule for spec in specs if selects(spec["podSelector"], pod) for rule in spec.get(direction, ())]
    peers = "from" if direction == "ingress" else "to"
    return any(port in [p["port"] for p in rule["ports"]] and any(meant(p) for p in rule[peers]) for rule in rules)


def may_call(folder: str, source: dict[str, str], target: dict[str, str], port: str) -> bool:
    """Whether pods of these labels, in the namespace, may open a connection."""
    return passes(folder, "egress", source, target, port, None) and passes(folder, "ingress", target, source, port, None)


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_only_the_calls_that_are_needed_pass_the_network_policies(folder):
    allocator, worker = (
        find(folder, "StatefulSet", name)["spec"]["template"]["metadata"]["labels"] for name in SERVICES
    )
    job = find("examples", "Job")["spec"]["template"]["metadata"]["labels"]
    assert may_call(folder, worker, allocator, "grpc")
    assert may_call(folder, job, worker, "grpc") and may_call(folder, job, allocator, "grpc")
    assert not may_call(folder, allocator, worker, "grpc") and not may_call(folder, worker, worker, "grpc")
    assert not may_call(folder, {"app": "other"}, allocator, "grpc")
    assert not may_call(folder, job, allocator, "admin")
    pod = find("examples", "Pod", "inference")["metadata"]["labels"]
    serving, elsewhere = {"ratequant.io/client": "true"}, {"kubernetes.io/metadata.name": "elsewhere"}
    assert passes(folder, "ingress", allocator, pod, "grpc", serving)
    assert not passes(folder, "ingress", allocator, pod, "grpc", elsewhere)
    for target in (allocator, worker):
        assert passes(folder, "ingress", target, {}, "admin", {"kubernetes.io/metadata.name": "monitoring"})
        assert not passes(folder, "ingress", target, pod, "admin", serving)


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_selectors_find_the_pods(folder):
    labels = {r["metadata"]["name"]: r["spec"]["template"]["metadata"]["labels"] for r in rendered(folder) if r["kind"] == "StatefulSet"}
    for kind in ("Service", "PodDisruptionBudget"):
        for resource in (r for r in rendered(folder) if r["kind"] == kind):
            selector = resource["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            found = [name for name, have in labels.items() if selector.items() <= have.items()]
            assert len(found) == 1, resource["metadata"]["name"]
    for name in SERVICES:
        assert find(folder, "StatefulSet", name)["spec"]["serviceName"] == f"{name}-pods"
        assert find(folder, "Service", f"{name}-pods")["spec"]["clusterIP"] == "None"


def test_dev_is_one_replica_on_a_cpu():
    for name in SERVICES:
        assert find("overlays/dev", "StatefulSet", name)["spec"]["replicas"] == 1
        (container,) = pods("overlays/dev")[name]["containers"]
        assert "--insecure" in container["args"] and "nvidia.com/gpu" not in container["resources"]["limits"]


def test_prod_has_mtls_and_a_policy_and_nothing_in_plaintext():
    for name in SERVICES:
        (container,) = pods("overlays/prod")[name]["containers"]
        flags = {argument.split("=")[0] for argument in container["args"]}
        assert {"--tls-cert", "--tls-key", "--tls-client-ca", "--auth-policy"} <= flags and "--insecure" not in flags
    secrets = {r["spec"]["secretName"] for r in rendered("overlays/prod") if r["kind"] == "Certificate"}
    for folder in ("overlays/prod", "examples"):
        for name, pod in pods(folder).items():
            for volume in pod["volumes"]:
                if "secret" in volume and name != "inference":
                    assert volume["secret"]["secretName"] in secrets, name


def test_prod_workers_have_gpus_spread_and_grow():
    pod = pods("overlays/prod")["ratequant-worker"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1" and "--device=cuda" in container["args"]
    keys = {constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    scaler = find("overlays/prod", "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "ratequant-worker" and scaler["minReplicas"] > 1
    assert "replicas" not in find("overlays/prod", "StatefulSet", "ratequant-worker")["spec"]
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == "ratequant_queue_waiting"


def test_certificates_are_for_the_names_that_clients_call():
    by_secret = {r["spec"]["secretName"]: r["spec"] for r in rendered("overlays/prod") if r["kind"] == "Certificate"}
    for name in SERVICES:
        assert f"{name}.ratequant.svc" in by_secret[f"{name}-tls"]["dnsNames"]
        assert "server auth" in by_secret[f"{name}-tls"]["usages"]
    called = {
        argument.split("=")[1].rsplit(":", 1)[0]
        for folder in ("overlays/prod", "examples")
        for _, container in containers(folder)
        for argument in container.get("args", ())
        if re.match(r"--(allocator|endpoint|worker-endpoint)=", argument)
    }
    assert called == {f"{name}.ratequant.svc" for name in SERVICES}


def test_the_access_policy_names_the_certificates():
    text = find("overlays/prod", "ConfigMap")["data"]["access.json"]
    named = {i for binding in json.loads(text)["bindings"] for i in binding["spiffeIds"]}
    have = {uri for r in rendered("overlays/prod") if r["kind"] == "Certificate" for uri in r["spec"].get("uris", ())}
    assert {i for i in named if "/ns/ratequant/" in i} <= have


def test_prometheus_finds_the_services_and_their_rules():
    monitor = find("overlays/prod", "ServiceMonitor")["spec"]
    for name in SERVICES:
        service = find("overlays/prod", "Service", f"{name}-pods")
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    rule = find("overlays/prod", "PrometheusRule")
    source = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
    assert rule["spec"] == source, "run deploy/kubernetes/update_rules"


def test_every_alert_is_in_the_runbook():
    source = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
    alerts = {rule["alert"] for group in source["groups"] for rule in group["rules"] if "alert" in rule}
    text = (ROOT / "deploy/RUNBOOK.md").read_text()
    told = set(re.findall(r"^### (RateQuant\w+)", text, re.MULTILINE))
    assert alerts and told == alerts
