"""Workers that publish to an allocator over TLS: by certificate, by token, and when they may not yet."""

from __future__ import annotations

import array
import contextlib
import json
import pathlib
import random
import shlex
import shutil

import pytest

from certificates import Authority
from ratequant import Client
from service_process import ServiceProcess, wait_until

FAKE_ENGINE = pathlib.Path(__file__).resolve().parents[1] / "services" / "calibration" / "fake_engine.py"
SERVER_NAMES = "DNS:localhost,IP:127.0.0.1"
TOKEN = "publisher-token-0123456789"
POLICY = {
    "bindings": [
        {"role": "CALIBRATOR", "dnsNames": ["worker.ratequant.svc"]},
        {"role": "CALIBRATOR", "tokens": ["publisher"]},
        {"role": "READER", "dnsNames": ["reader.ratequant.svc"]},
    ]
}


class Fleet:
    """An allocator that asks for certificates, and workers that publish to it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.authority = Authority(folder / "ca")
        names = {"server": SERVER_NAMES, "worker": "DNS:worker.ratequant.svc", "reader": "DNS:reader.ratequant.svc"}
        self.files = {name: self.authority.sign(folder / "keys", name, san) for name, san in names.items()}
        self.policy = folder / "policy.json"
        self.policy.write_text(json.dumps(POLICY))
        (folder / "tokens").write_text(f"publisher {TOKEN}\n")
        (folder / "token").write_text(TOKEN)
        (folder / "models/tiny").mkdir(parents=True)
        values = random.Random(1)
        with open(folder / "tensors", "wb") as out:
            array.array("f", (values.gauss(0, 1) for _ in range(2 * 2 * 4 * 2 * 64 * 64))).tofile(out)
        certificate, key = map(str, self.files["server"])
        self.allocator = ServiceProcess(
            "ratequant-allocator",
            folder,
            *("--data-dir", str(folder / "data"), "--auth-policy", str(self.policy)),
            *("--auth-tokens", str(folder / "tokens"), "--reload-interval", "1"),
            *("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", str(self.authority.certificate)),
            "--tls-client-optional",
        )

    def by_certificate(self, name: str) -> list[str]:
        """Flags of a worker that shows a certificate."""
        certificate, key = map(str, self.files[name])
        return ["--allocator-cert", certificate, "--allocator-key", key]

    @contextlib.contextmanager
    def worker(self, name: str, ca: pathlib.Path, *flags: str):
        folder = self.folder / f"{name}.worker"
        engine = ["/usr/bin/python3", str(FAKE_ENGINE), "--geometry", "2,2,4,64"]
        engine += ["--tensors", str(self.folder / "tensors")]
        with ServiceProcess(
            "ratequant-worker",
            folder,
            *("--model-root", str(self.folder / "models"), "--spool-dir", str(folder / "spool")),
            *("--engine", shlex.join(engine), "--allocator", f"localhost:{self.allocator.port}"),
            *("--allocator-ca", str(ca), *flags),
        ) as worker:
            yield worker

    def stored(self, model: str) -> list[str]:
        """Names of a model's calibrations at the allocator."""
        certificate, key = map(str, self.files["reader"])
        with Client(
            f"localhost:{self.allocator.port}",
            tls_ca=str(self.authority.certificate),
            tls_cert=certificate,
            tls_key=key,
        ) as client:
            if not any(found.name == f"models/{model}" for found in client.list_models()):
                return []
            return [calibration.name for calibration in client.list_calibrations(model)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    made = Fleet(tmp_path_factory.mktemp("publishing"))
    with made.allocator:
        yield made


def _calibrate(worker: ServiceProcess, model: str) -> str:
    """The calibration's name, wherever it is by now."""
    with Client(worker_endpoint=worker.endpoint) as client:
        options = {"sequences": 2, "sequence_length": 64, "quantizers": ("rtn",)}
        *_, last = client.calibrate_model(model, "tiny", "Some text.", **options)
    return last.calibration


def _waits(worker: ServiceProcess, name: str) -> None:
    wait_until(
        lambda: f"{name} is not published yet and waits in the spool" in worker.log.read_text(), "it isn't kept for later"
    )


def test_a_worker_publishes_with_a_certificate(fleet: Fleet):
    with fleet.worker("certificate", fleet.authority.certificate, *fleet.by_certificate("worker")) as worker:
        name = _calibrate(worker, "by-certificate")
        assert fleet.stored("by-certificate") == [name]


def test_a_worker_publishes_with_a_token(fleet: Fleet):
    flags = ("--allocator-token-file", str(fleet.folder / "token"))
    with fleet.worker("token", fleet.authority.certificate, *flags) as worker:
        name = _calibrate(worker, "by-token")
        assert fleet.stored("by-token") == [name]


def test_what_a_worker_may_not_publish_waits_until_the_policy_lets_it(fleet: Fleet):
    with fleet.worker("reader", fleet.authority.certificate, *fleet.by_certificate("reader")) as worker:
        name = _calibrate(worker, "by-reader")
        _waits(worker, name)
        assert fleet.stored("by-reader") == []
        widened = [*POLICY["bindings"], {"role": "CALIBRATOR", "dnsNames": ["reader.ratequant.svc"]}]
        fleet.policy.write_text(json.dumps({"bindings": widened}))
        wait_until(lambda: fleet.stored("by-reader") == [name], "it never leaves the spool", 180)


def test_an_allocator_that_another_ca_signed_gets_nothing_until_its_ca_is_trusted(fleet: Fleet, tmp_path):
    ca = tmp_path / "ca.pem"
    shutil.copy(Authority(tmp_path, "other").certificate, ca)
    with fleet.worker("foreign", ca, *fleet.by_certificate("worker")) as worker:
        name = _calibrate(worker, "by-foreign")
        _waits(worker, name)
        assert fleet.stored("by-foreign") == []
        trusted = tmp_path / "trusted.pem"
        shutil.copy(fleet.authority.certificate, trusted)
        trusted.replace(ca)
        wait_until(lambda: fleet.stored("by-foreign") == [name], "the new CA isn't read", 180)
