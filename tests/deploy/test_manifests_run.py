"""The programs of this build started with the very flags of the manifests: the prod
overlay's with its access policy and certificates as its Certificates ask for them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import grpc
import pytest
from sample import calibration
from serving import ROOT, wait_until_serving
from test_manifests import pods, rendered

from ratequant import Client
from ratequant.errors import RateQuantError

NAME = "ratequant-allocator"


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class Authority:
    """A CA that gives out certificates like cert-manager's secrets: tls.crt, tls.key, ca.crt."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._key, self._certificate = folder / "ca.key", folder / "ca.crt"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *curve, "-keyout", self._key, "-out", self._certificate, "-subj", "/CN=ca", "-days", "2")

    def secret(self, name: str, dns_names: list[str], uris: list[str]) -> Path:
        """A folder with the files of a secret."""
        out = self._folder / name
        out.mkdir()
        names = ",".join([f"DNS:{n}" for n in dns_names] + [f"URI:{u}" for u in uris])
        (out / "extensions").write_text(f"subjectAltName={names}\n")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", *curve, "-keyout", out / "tls.key", "-out", out / "request", "-subj", f"/CN={name}")
        signed = ("-CA", self._certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        openssl("x509", "-req", "-in", out / "request", *signed, "-extfile", out / "extensions", "-out", out / "tls.crt")
        (out / "ca.crt").write_bytes(self._certificate.read_bytes())
        return out


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def local(arguments: list[str], folders: dict[str, Path], health_port: int) -> list[str]:
    """A container's arguments for this machine: mounted folders and ports replaced."""
    found = []
    for argument in arguments:
        for inside, outside in folders.items():
            argument = re.sub(rf"={inside}(?=/|$)", f"={outside}", argument)
        argument = re.sub(r"^--health-address=.*", f"--health-address=127.0.0.1:{health_port}", argument)
        argument = re.sub(r"^--(address|admin-listen)=.*", r"--\1=127.0.0.1:0", argument)
        found.append(argument)
    return found


class _Running:
    """An allocator; use as a context that gives its plaintext health's host:port."""

    def __init__(self, arguments: list[str], folder: Path):
        self.port_file, self._log = folder / "port", folder / "log"
        command = ["setpriv", "--pdeathsig", "TERM", "--", ROOT / "build/bin" / NAME, *arguments]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([*map(str, command), "--port-file", self.port_file], stdout=log, stderr=log)

    def check(self) -> None:
        if self._process.poll() is not None:
            pytest.fail(f"ended with {self._process.returncode}:\n{self._log.read_text()}")

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *exc) -> None:
        self._process.kill()
        self._process.wait()


def start(folder: str, tmp_path: Path, folders: dict[str, Path]) -> tuple[_Running, Path]:
    """The allocator with a folder's flags, and a file with its health port."""
    (container,) = pods(folder)[NAME]["containers"]
    health = tmp_path / "health"
    port = free_port()
    health.write_text(f"{port}\n")
    data = {"/var/lib/ratequant": tmp_path / "data"}
    (tmp_path / "data").mkdir()
    return _Running(local(container["args"], folders | data, port), tmp_path), health


def test_dev_serves_in_plaintext(tmp_path):
    running, health = start("overlays/dev", tmp_path, {})
    with running:
        wait_until_serving(health, running.check)
        with Client(f"127.0.0.1:{running.port_file.read_text().strip()}") as client:
            stored = client.create_calibration("Tiny", calibration())
            assert client.get_bit_map("Tiny", effective_bits=4).calibration == stored.name


class Production(_Running):
    """The allocator with the prod overlay's flags, access policy and certificates.

    Attributes:
      secrets: folders with the files of secrets, by who has them; "engine" and "stranger" are in other namespaces.
    """

    def __init__(self, folder: Path):
        authority = Authority(folder)
        certificates = {r["metadata"]["name"]: r["spec"] for r in rendered("overlays/prod") if r["kind"] == "Certificate"}
        names = ("ratequant-allocator", "ratequant-worker", "ratequant-operator")
        self.secrets = {
            name: authority.secret(name, ["localhost", *certificates[name].get("dnsNames", ())], certificates[name]["uris"])
            for name in names
        }
        self.secrets["engine"] = authority.secret("engine", [], ["spiffe://cluster.local/ns/serving/sa/inference"])
        self.secrets["stranger"] = authority.secret("stranger", [], ["spiffe://cluster.local/ns/other/sa/default"])
        access = folder / "access"
        access.mkdir()
        (config,) = (r for r in rendered("overlays/prod") if r["kind"] == "ConfigMap")
        (access / "access.json").write_text(config["data"]["access.json"])
        (folder / "data").mkdir()
        mounts = {
            "/etc/ratequant/tls": self.secrets[NAME],
            "/etc/ratequant/access": access,
            "/var/lib/ratequant": folder / "data",
        }
        self.health = folder / "health"
        self.health.write_text(f"{(port := free_port())}\n")
        super().__init__(local(pods("overlays/prod")[NAME]["containers"][0]["args"], mounts, port), folder)

    def __enter__(self) -> Production:
        wait_until_serving(self.health, self.check)
        self.endpoint = f"localhost:{self.port_file.read_text().strip()}"
        return self

    def client(self, name: str) -> Client:
        files = {"tls_ca": "ca.crt", "tls_cert": "tls.crt", "tls_key": "tls.key"}
        return Client(self.endpoint, **{option: str(self.secrets[name] / file) for option, file in files.items()})


def test_prod_serves_its_roles_over_mtls(tmp_path):
    with Production(tmp_path) as production:
        client = production.client
        with client("ratequant-worker") as worker, client("engine") as engine, client("ratequant-operator") as operator:
            stored = worker.create_calibration("Tiny", calibration())
            assert engine.get_bit_map("Tiny", effective_bits=4).calibration == stored.name
            for caller in (engine, worker):
                with pytest.raises(RateQuantError) as refused:
                    caller.delete_calibration("Tiny", stored.name)
                assert refused.value.code == grpc.StatusCode.PERMISSION_DENIED
            operator.delete_calibration("Tiny", stored.name)
        with client("stranger") as stranger, pytest.raises(RateQuantError) as refused:
            list(stranger.list_models())
        assert refused.value.code == grpc.StatusCode.PERMISSION_DENIED


def test_the_inference_pod_has_its_map_before_the_engine_and_follows_it(tmp_path):
    pod = pods("examples")["inference"]
    (get,) = pod["initContainers"]
    follow = next(c for c in pod["containers"] if c["name"] == "bit-map-follower")
    engine = next(c for c in pod["containers"] if c["name"] == "engine")
    (named,) = (v["value"] for v in engine["env"] if v["name"] == "RATEQUANT_BIT_MAP")
    shared = tmp_path / "bit-map"
    shared.mkdir()
    file = shared / Path(named).relative_to("/bit-map")

    def shown() -> str:
        """The calibration of the map that an engine finds, at any time a whole one."""
        return json.loads(file.read_text())["calibration"]

    with Production(tmp_path) as production, production.client("ratequant-worker") as worker:
        folders = {"/etc/ratequant/tls": production.secrets["engine"], "/bit-map": shared}

        def command(container: dict) -> list[str]:
            arguments = [re.sub(r"^--endpoint=.*", f"--endpoint={production.endpoint}", a) for a in container["args"]]
            return [str(ROOT / "build/bin" / Path(container["command"][0]).name), *local(arguments, folders, 0)]

        (model,) = (a.removeprefix("--model=") for a in get["args"] if a.startswith("--model="))
        first = worker.create_calibration(model, calibration())
        run = subprocess.run(command(get), capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        assert shown() == first.name
        follower = subprocess.Popen(command(follow), stdout=subprocess.DEVNULL)
        try:
            second = worker.create_calibration(model, calibration(seed=1))
            deadline = time.monotonic() + 120
            while shown() != second.name:
                assert follower.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            follower.terminate()
            assert follower.wait(60) == 0
        finally:
            follower.kill()
            follower.wait()
