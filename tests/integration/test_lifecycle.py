"""Starting, stopping, configuring and overloading the allocator, as an operator does."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import Authority
from ratequant import Client
from ratequant.retry import RetryPolicy
from ratequant.services import find_binary
from service_process import ServiceProcess, wait_until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def _health(endpoint: str) -> int | None:
    with grpc.insecure_channel(endpoint) as channel:
        try:
            return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status
        except grpc.RpcError:
            return None


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Load:
    """Threads that read through clients with retries until they are stopped."""

    def __init__(self, endpoint: str, threads: int, **options):
        self.answers, self.failures = 0, []
        self._stop, self._lock = threading.Event(), threading.Lock()
        # The pauses add up to longer than a slow machine's restart.
        retry = RetryPolicy(attempts=200, longest_delay=0.5)
        self._threads = [
            threading.Thread(target=self._run, args=(Client(endpoint, timeout=120, retry=retry, **options),))
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, client: Client) -> None:
        with client:
            while not self._stop.is_set():
                try:
                    list(client.list_models())
                except Exception as error:  # noqa: BLE001 - every failure counts
                    with self._lock:
                        self.failures.append(error)
                    return
                with self._lock:
                    self.answers += 1

    def wait_for(self, more: int) -> None:
        goal = self.answers + more
        wait_until(lambda: self.answers >= goal or bool(self.failures), "no answers")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_call_of_a_client_with_retries_fails_over_restarts(tmp_path):
    arguments = ("--data-dir", str(tmp_path / "data"))
    allocator = ServiceProcess("ratequant-allocator", tmp_path, *arguments)
    load = Load(allocator.endpoint, threads=4)
    try:
        for _ in range(3):
            load.wait_for(50)
            assert allocator.stop() == 0
            allocator = ServiceProcess("ratequant-allocator", tmp_path, *arguments, port=allocator.port)
        load.wait_for(50)
    finally:
        load.stop()
        allocator.stop()
    assert not load.failures, load.failures[0]


def test_a_draining_allocator_says_so_and_still_answers(tmp_path):
    health_port = _free_port()
    allocator = ServiceProcess(
        "ratequant-allocator",
        tmp_path,
        *("--data-dir", str(tmp_path / "data"), "--drain-delay", "3600"),
        *("--health-address", f"127.0.0.1:{health_port}"),
    )
    try:
        for endpoint in (allocator.endpoint, f"127.0.0.1:{health_port}"):
            assert _health(endpoint) == SERVING
        allocator.process.send_signal(signal.SIGTERM)
        for endpoint in (allocator.endpoint, f"127.0.0.1:{health_port}"):
            wait_until(lambda endpoint=endpoint: _health(endpoint) == NOT_SERVING, "health doesn't change")
        with Client(allocator.endpoint) as client:
            assert list(client.list_models()) == []
    finally:
        # The second signal ends it at once.
        allocator.process.send_signal(signal.SIGTERM)
        assert allocator.process.wait(60) == -signal.SIGTERM


def test_rotated_certificates_serve_new_connections_and_drop_no_call(tmp_path):
    """Server and clients change to another CA, as a volume of Kubernetes does: by a link."""
    authorities = {name: Authority(tmp_path / name, name) for name in ("old", "new")}
    both = b"".join(authority.certificate.read_bytes() for authority in authorities.values())
    for name, authority in authorities.items():
        authority.sign(tmp_path / f"{name}.d", "server", "DNS:localhost,IP:127.0.0.1")
        authority.sign(tmp_path / f"{name}.d", "client", "DNS:reader")
        (tmp_path / f"{name}.d" / "ca.pem").write_bytes(both)
    current = tmp_path / "current"
    current.symlink_to("old.d")
    (tmp_path / "policy.json").write_text('{"bindings": [{"role": "READER", "dnsNames": ["reader"]}]}')
    allocator = ServiceProcess(
        "ratequant-allocator",
        tmp_path,
        *("--data-dir", str(tmp_path / "data"), "--auth-policy", str(tmp_path / "policy.json")),
        *("--tls-cert", str(current / "server.pem"), "--tls-key", str(current / "server.key")),
        *("--tls-client-ca", str(current / "ca.pem"), "--reload-interval", "1"),
    )

    def shown_by_server() -> str:
        ran = subprocess.run(
            ["openssl", "s_client", "-connect", allocator.endpoint, "-alpn", "h2", "-showcerts"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        issuer = [line for line in ran.stdout.splitlines() if "issuer=" in line]
        return issuer[0].rsplit("=", 1)[1].strip() if issuer else ""

    files = {"tls_ca": current / "ca.pem", "tls_cert": current / "client.pem", "tls_key": current / "client.key"}
    load = Load(allocator.endpoint, threads=2, **files)
    try:
        load.wait_for(20)
        assert shown_by_server() == "old"
        replacement = tmp_path / "replacement"
        replacement.symlink_to("new.d")
        os.replace(replacement, current)
        wait_until(lambda: shown_by_server() == "new", "the new certificate isn't shown")
        load.wait_for(50)
        with Client(allocator.endpoint, **files) as client:
            assert list(client.list_models()) == []
        ran = subprocess.run(
            [find_binary("ratequant"), "--endpoint", allocator.endpoint, "models"]
            + ["--tls-ca", str(files["tls_ca"]), "--tls-cert", str(files["tls_cert"]), "--tls-key", str(files["tls_key"])],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
    finally:
        load.stop()
        allocator.stop()
    assert not load.failures, load.failures[0]


def _start_failure(*arguments: str, **environment: str) -> tuple[int, str]:
    ran = subprocess.run(
        [find_binary("ratequant-allocator"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("toml", "environment", "flags", "named"),
    [
        ("memory-mebibyte = 5", {}, [], "'memory-mebibyte' isn't a key"),
        ("memory-mib = 0", {}, [], "--memory-mib"),
        ("memory-mib = 'much'", {}, [], "--memory-mib"),
        ("", {"RATEQUANT_ALLOCATOR_MAX_WAITING": "-1"}, [], "RATEQUANT_ALLOCATOR_MAX_WAITING"),
        ("", {"RATEQUANT_ALLOCATOR_INSECURE": "perhaps"}, [], "--insecure"),
        ("", {}, ["--client-rate", "x"], "--client-rate"),
        ("", {}, ["--tls-key", "/dev/null"], "--tls-cert"),
        ("", {}, ["--tls-cert", "/no/such", "--tls-key", "/no/such"], "--tls-cert"),
        ("", {}, ["--tls-cert", "/dev/null", "--tls-key", "/dev/null"], "--tls-cert"),
        ("", {}, ["--auth-policy", "/no/such"], "--auth-policy"),
        ("", {}, ["--auth-policy", "/dev/null"], "--auth-policy"),
        ("", {}, ["--auth-tokens", "/dev/null"], "--auth-policy"),
        ("", {}, ["--address", "0.0.0.0:0"], "--tls-cert"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, toml, environment, flags, named):
    config = tmp_path / "allocator.toml"
    config.write_text(toml)
    code, error = _start_failure("--config", str(config), "--data-dir", str(tmp_path / "d"), *flags, **environment)
    assert code == 2, error
    assert named in error


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path):
    """Shown by which of three bad values is complained about."""
    config = tmp_path / "allocator.toml"
    config.write_text("memory-mib = -3\nstore-mib = -3\nmax-waiting = -3\n")
    good = {f"RATEQUANT_ALLOCATOR_{name}": "1" for name in ("MEMORY_MIB", "STORE_MIB", "MAX_WAITING")}
    words = ("--config", str(config), "--data-dir", str(tmp_path / "d"), "--address", "0.0.0.0:0")
    # The environment hides all of the file, and the address is what is wrong.
    assert "0.0.0.0:0" in _start_failure(*words, **good)[1]
    bad = good | {"RATEQUANT_ALLOCATOR_STORE_MIB": "-2"}
    assert "-2" in _start_failure(*words, **bad)[1]
    assert "0.0.0.0:0" in _start_failure(*words, "--store-mib", "1", **bad)[1]
    assert "-1" in _start_failure(*words, "--store-mib=-1", **good)[1]
    del good["RATEQUANT_ALLOCATOR_MAX_WAITING"]
    assert "-3" in _start_failure(*words, **good)[1]
    by_environment = {"RATEQUANT_ALLOCATOR_CONFIG": str(config)}
    assert "-3" in _start_failure("--data-dir", str(tmp_path / "d"), **by_environment)[1]


def test_a_client_that_calls_too_often_is_told_when_to_come_back(tmp_path):
    allocator = ServiceProcess(
        "ratequant-allocator",
        tmp_path,
        *("--data-dir", str(tmp_path / "data"), "--client-rate", "0.001", "--client-burst", "3"),
    )
    pauses: list[float] = []
    retry = RetryPolicy(attempts=2, sleep=pauses.append)
    try:
        with Client(allocator.endpoint, timeout=1e6, retry=retry) as client:
            for _ in range(3):
                list(client.list_models())
            with pytest.raises(Exception, match="RATE_LIMITED"):
                list(client.list_models())
    finally:
        allocator.stop()
    # A token every 1000 seconds.
    assert len(pauses) == 1 and 500 < pauses[0] < 1002


def test_settings_reach_the_program_from_the_file(tmp_path: pathlib.Path):
    config = tmp_path / "allocator.toml"
    config.write_text(f'data-dir = "{tmp_path / "from-file"}"\n')
    allocator = ServiceProcess("ratequant-allocator", tmp_path, "--config", str(config))
    assert allocator.stop() == 0
    assert (tmp_path / "from-file").is_dir()
