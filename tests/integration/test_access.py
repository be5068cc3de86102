"""Who may call what on both services, over TLS: every RPC with every credential."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import subprocess

import grpc
import pytest
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import Authority
from ratequant import Client
from ratequant.errors import RateQuantError
from ratequant.services import find_binary
from ratequant.v1 import admin_service_pb2, allocation_service_pb2, calibration_service_pb2
from service_process import ServiceProcess, wait_until

SERVER_NAMES = "DNS:localhost,IP:127.0.0.1"
READER, CALIBRATOR, ADMIN = 1, 2, 3
OWN, FOREIGN = "Qwen--tiny", "Llama--tiny"


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a method needs: a role, and for what: "model" (the one that `field`
    names), "prefix", "any" model at all, or "all" models."""

    role: int
    scope: str
    field: str = ""
    value: str = "models/{}"


RULES = {
    "RegistryService.CreateCalibration": Rule(CALIBRATOR, "model", "parent"),
    "RegistryService.GetCalibration": Rule(READER, "model", "name", "models/{}/calibrations/latest"),
    "RegistryService.ListCalibrations": Rule(READER, "model", "parent"),
    "RegistryService.DeleteCalibration": Rule(ADMIN, "model", "name", "models/{}/calibrations/1"),
    "RegistryService.GetModel": Rule(READER, "model", "name"),
    "RegistryService.ListModels": Rule(READER, "prefix", "id_prefix", "{}"),
    "RegistryService.ListEvaluations": Rule(READER, "model", "parent"),
    "RegistryService.DeleteEvaluation": Rule(ADMIN, "model", "name", "models/{}/bitMaps/1/evaluations/1"),
    "RegistryService.CreatePolicy": Rule(CALIBRATOR, "all"),
    "RegistryService.GetPolicy": Rule(READER, "any", "name", "policies/p"),
    "RegistryService.ListPolicies": Rule(READER, "any"),
    "RegistryService.DeletePolicy": Rule(ADMIN, "all", "name", "policies/p"),
    "AllocationService.GetBitMap": Rule(READER, "model", "model"),
    "AllocationService.BatchGetBitMaps": Rule(READER, "model", "requests.model"),
    "AllocationService.WatchBitMap": Rule(READER, "model", "model"),
    "AllocationService.RecordEvaluation": Rule(CALIBRATOR, "model", "bit_map", "models/{}/bitMaps/1"),
    "AllocationService.GetRateDistortionCurve": Rule(READER, "model", "model"),
    "AdminService.CreateBackup": Rule(ADMIN, "all"),
    "AdminService.GetStatistics": Rule(READER, "all"),
    "CalibrationService.CalibrateModel": Rule(CALIBRATOR, "model", "model"),
    "CalibrationService.CalibrateStream": Rule(CALIBRATOR, "model", "header.model"),
}


@dataclasses.dataclass(frozen=True)
class Credential:
    """How a caller shows itself, and what the policy below gives it."""

    role: int  # 0: none
    certificate: str = ""  # by name
    token: str = ""
    prefix: str = ""
    known: bool = True


CREDENTIALS = {
    "nothing": Credential(0, known=False),
    "unknown token": Credential(0, token="not-a-token-of-anyone", known=False),
    "unknown token, good certificate": Credential(0, "admin", "not-a-token-of-anyone", known=False),
    "certificate of nobody": Credential(0, "stranger"),
    "reader certificate": Credential(READER, "reader"),
    "reader token": Credential(READER, token="reader-token-0123456789"),
    "reader token of one tenant": Credential(READER, token="tenant-token-0123456789", prefix="Qwen--"),
    "calibrator certificate": Credential(CALIBRATOR, "calibrator"),
    "calibrator token of one tenant": Credential(CALIBRATOR, token="builder-token-0123456789", prefix="Qwen--"),
    "admin certificate": Credential(ADMIN, "admin"),
    "admin token of one tenant": Credential(ADMIN, token="owner-token-0123456789", prefix="Qwen--"),
}

TOKENS = """\
# name token
dashboard reader-token-0123456789
tenant tenant-token-0123456789   # of one tenant
builder builder-token-0123456789
owner owner-token-0123456789
"""
POLICY = {
    "bindings": [
        {"role": "READER", "spiffeIds": ["spiffe://example.org/ns/serving/*"]},
        {"role": "READER", "tokens": ["dashboard"]},
        {"role": "READER", "tokens": ["tenant"], "modelPrefixes": ["Qwen--"]},
        {"role": "CALIBRATOR", "dnsNames": ["worker.ratequant.svc"]},
        {"role": "CALIBRATOR", "tokens": ["builder"], "modelPrefixes": ["Qwen--", "Nobody--"]},
        {"role": "ADMIN", "spiffeIds": ["spiffe://example.org/ns/ratequant/sa/operator"]},
        {"role": "ADMIN", "tokens": ["owner"], "modelPrefixes": ["Qwen--"]},
    ]
}
CERTIFICATES = {
    "reader": "URI:spiffe://example.org/ns/serving/sa/engine",
    "calibrator": "DNS:worker.ratequant.svc",
    "admin": "URI:spiffe://example.org/ns/ratequant/sa/operator",
    "stranger": "URI:spiffe://example.org/ns/servingx/sa/engine,DNS:other.ratequant.svc",
}

SERVICES = {
    service.name: service
    for file in (allocation_service_pb2, admin_service_pb2, calibration_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
METHODS = {f"{name}.{method.name}": method for name, service in SERVICES.items() for method in service.methods}


class Fleet:
    """Both services with TLS and a policy, and credentials for them."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.authority = Authority(folder / "ca")
        self.certificates = {name: self.authority.sign(folder / "client", name, san) for name, san in CERTIFICATES.items()}
        certificate, key = self.authority.sign(folder / "server", "server", SERVER_NAMES)
        (folder / "policy.json").write_text(json.dumps(POLICY))
        (folder / "tokens").write_text(TOKENS)
        common = [
            *("--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(self.authority.certificate)),
            *("--tls-client-optional", "--auth-policy", str(folder / "policy.json")),
            *("--auth-tokens", str(folder / "tokens"), "--reload-interval", "1"),
        ]
        (folder / "models").mkdir()
        self.allocator = ServiceProcess("ratequant-allocator", folder, "--data-dir", str(folder / "data"), *common)
        self.worker = ServiceProcess(
            "ratequant-worker",
            folder,
            *("--model-root", str(folder / "models"), "--spool-dir", str(folder / "spool"), "--no-publish"),
            *common,
        )

    def stop(self) -> None:
        assert self.allocator.stop() == 0
        assert self.worker.stop() == 0

    def endpoint(self, service: str) -> str:
        return (self.worker if service == "CalibrationService" else self.allocator).endpoint

    def channel(self, service: str, credential: Credential) -> grpc.Channel:
        ca = self.authority.certificate.read_bytes()
        own: tuple[bytes | None, bytes | None] = (None, None)
        if credential.certificate:
            certificate, key = self.certificates[credential.certificate]
            own = key.read_bytes(), certificate.read_bytes()
        return grpc.secure_channel(self.endpoint(service), grpc.ssl_channel_credentials(ca, *own))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    made = Fleet(tmp_path_factory.mktemp("access"))
    yield made
    made.stop()


def _request(name: str, model: str):
    message = message_factory.GetMessageClass(METHODS[name].input_type)()
    rule = RULES[name]
    at = message
    *path, last = rule.field.split(".") if rule.field else [""]
    for step in path:
        at = at.requests.add() if step == "requests" else getattr(at, step)
    if last:
        setattr(at, last, rule.value.format(model))
    return message


def _call(channel: grpc.Channel, name: str, request, token: str = "") -> grpc.RpcError | None:
    """The error of one call; None when it went well."""
    method = METHODS[name]
    kind = ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
    call = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    argument = iter([request]) if method.client_streaming else request
    try:
        answer = call(argument, timeout=60, metadata=metadata)
        if method.server_streaming:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        return error
    return None


def _expected(rule: Rule, credential: Credential, model: str) -> str:
    """The reason of the refusal, empty when the call is to be let in."""
    if not credential.known:
        return "UNAUTHENTICATED"
    if credential.role < rule.role:
        return "ACCESS_DENIED"
    within = {"model": model.startswith(credential.prefix), "all": not credential.prefix, "any": True}
    within["prefix"] = within["model"]
    return "" if within[rule.scope] else "ACCESS_DENIED"


def test_every_method_of_every_service_has_a_rule_here():
    assert set(RULES) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_credential_gets_exactly_what_its_role_allows(fleet: Fleet, name: str):
    rule, wrong = RULES[name], []
    for title, credential in CREDENTIALS.items():
        with fleet.channel(name.split(".")[0], credential) as channel:
            for model in (OWN, FOREIGN):
                error = _call(channel, name, _request(name, model), credential.token)
                reason = "" if error is None else RateQuantError.from_rpc(error).reason
                refused = reason if reason in ("UNAUTHENTICATED", "ACCESS_DENIED") else ""
                if refused != _expected(rule, credential, model):
                    wrong.append(f"{title}, {model}: {error}")
                if refused:
                    code, text = (
                        (grpc.StatusCode.UNAUTHENTICATED, "credentials are missing or not known")
                        if refused == "UNAUTHENTICATED"
                        else (grpc.StatusCode.PERMISSION_DENIED, "not allowed")
                    )
                    assert (error.code(), error.details()) == (code, text)
    assert not wrong, "\n".join(wrong)


def test_a_batch_is_refused_for_one_foreign_model_and_when_it_is_empty(fleet: Fleet):
    tenant = CREDENTIALS["reader token of one tenant"]
    name = "AllocationService.BatchGetBitMaps"
    request = _request(name, OWN)
    request.requests.add().model = f"models/{FOREIGN}"
    with fleet.channel("AllocationService", tenant) as channel:
        assert _call(channel, name, request, tenant.token).code() == grpc.StatusCode.PERMISSION_DENIED
        request.ClearField("requests")
        # Nothing is asked of any model: let in, and refused for what it is.
        assert RateQuantError.from_rpc(_call(channel, name, request, tenant.token)).reason == "BATCH_EMPTY"
        assert _call(channel, name, request).code() == grpc.StatusCode.UNAUTHENTICATED


def test_every_denial_is_logged_with_who_and_why_and_without_the_token(fleet: Fleet):
    tenant = CREDENTIALS["reader token of one tenant"]
    with fleet.channel("RegistryService", tenant) as channel:
        _call(channel, "RegistryService.GetModel", _request("RegistryService.GetModel", "Other--\nx"), tenant.token)
        _call(channel, "RegistryService.GetModel", _request("RegistryService.GetModel", OWN), "wrong-secret-012345678")
    log = fleet.allocator.log.read_text()
    assert re.search(
        r"denied ratequant.v1.RegistryService.GetModel to token:tenant@.*no binding with READER for 'Other--\?x'", log
    )
    assert "a token that isn't known" in log
    assert "wrong-secret" not in log and tenant.token not in log


def test_health_and_reflection_are_open(fleet: Fleet):
    with fleet.channel("RegistryService", CREDENTIALS["nothing"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", *(s.full_name for n, s in SERVICES.items() if n != "CalibrationService")):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_clients_take_files_and_token(fleet: Fleet, tmp_path):
    ca = str(fleet.authority.certificate)
    certificate, key = (str(path) for path in fleet.certificates["reader"])
    token = tmp_path / "token"
    token.write_text("tenant-token-0123456789\n")
    program = find_binary("ratequant")

    def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [program, "--endpoint", fleet.allocator.endpoint, "models", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert command("--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key).returncode == 0
    by_environment = command(RATEQUANT_TLS_CA=ca, RATEQUANT_TLS_CERT=certificate, RATEQUANT_TLS_KEY=key)
    assert by_environment.returncode == 0, by_environment.stderr
    refused = command("--tls-ca", ca)
    assert refused.returncode == 1 and "say who you are: --token-file FILE" in refused.stderr
    tenant = command("--tls-ca", ca, RATEQUANT_TOKEN_FILE=str(token))
    assert tenant.returncode == 1 and "ACCESS_DENIED" in tenant.stderr
    with Client(fleet.allocator.endpoint, tls_ca=ca, tls_cert=certificate, tls_key=key) as client:
        assert list(client.list_models()) == []
    with Client(fleet.allocator.endpoint, tls_ca=ca, token_file=token) as client:
        assert list(client.list_models("Qwen--")) == []
        with pytest.raises(RateQuantError, match="ACCESS_DENIED"):
            list(client.list_models())
        # The file is read for each call.
        token.write_text("reader-token-0123456789")
        assert list(client.list_models()) == []


def test_a_server_that_another_ca_signed_is_not_called(fleet: Fleet, tmp_path):
    other = Authority(tmp_path, "other")
    ran = subprocess.run(
        [find_binary("ratequant"), "--endpoint", fleet.allocator.endpoint, "--timeout", "5", "models"]
        + ["--tls-ca", str(other.certificate)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 4, ran.stderr


def test_plaintext_to_another_machine_is_refused_by_the_clients():
    with pytest.raises(ValueError, match="plaintext"):
        Client("192.0.2.1:50061")
    ran = subprocess.run(
        [find_binary("ratequant"), "--endpoint", "192.0.2.1:50061", "models"], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1 and "in plaintext" in ran.stderr and "--insecure" in ran.stderr


def test_a_new_policy_counts_without_a_restart_and_a_broken_one_does_not(fleet: Fleet):
    path = fleet.folder / "policy.json"
    stranger = CREDENTIALS["certificate of nobody"]
    widened = {"bindings": [*POLICY["bindings"], {"role": "READER", "dnsNames": ["other.ratequant.svc"]}]}
    name = "RegistryService.ListModels"

    def until(allowed: bool) -> None:
        with fleet.channel("RegistryService", stranger) as channel:
            wait_until(lambda: (_call(channel, name, _request(name, "")) is None) == allowed, "the policy isn't read again")

    path.write_text(json.dumps(widened))
    until(allowed=True)
    path.write_text('{"bindings": [{"role": "READERS"}]}')
    kept = "the access policy before stays"
    wait_until(lambda: kept in fleet.allocator.log.read_text(), "the broken policy isn't noticed")
    until(allowed=True)
    path.write_text(json.dumps(POLICY))
    until(allowed=False)
