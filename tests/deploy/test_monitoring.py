"""deploy/monitoring against Prometheus' own tools and against services that run: every metric that
rules and dashboard name is exported, logs and traces carry what a client sent, and the admin port
answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ratequant.v1 import (
    allocation_service_pb2,
    allocation_service_pb2_grpc,
    bit_map_pb2,
    calibration_service_pb2,
    calibration_service_pb2_grpc,
)

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
FAKE_ENGINE = ROOT / "tests" / "services" / "calibration" / "fake_engine.py"
# Far above what anything takes: it ends a test that hangs, it decides none.
TIMEOUT = 120
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def wait_for(condition: Callable[[], object], what: str) -> object:
    """What `condition` answers once it is true."""
    end = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {TIMEOUT} s for {what}"
        time.sleep(0.05)
    return value


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Service:
    """A service with an admin port, and its log of JSON lines."""

    def __init__(self, folder: Path, name: str, *arguments: str):
        self.log = folder / f"{name}.log"
        ports = folder / f"{name}.port", folder / f"{name}.admin"
        binary = Path(os.environ.get("RATEQUANT_BIN_DIR", ROOT / "build" / "bin")) / name
        common = ["--address", "127.0.0.1:0", "--port-file", str(ports[0])]
        common += ["--admin-listen", "0", "--admin-port-file", str(ports[1])]
        common += ["--log-format", "json", "--log-level", "debug"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(binary), *common, *arguments], stderr=log, stdout=log)
        for port in ports:
            wait_for(lambda port=port: port.exists() or self.process.poll() is not None, str(port))
            assert port.exists(), self.log.read_text()
        self.address = f"127.0.0.1:{ports[0].read_text().strip()}"
        self.admin = int(ports[1].read_text())
        self.channel = grpc.insecure_channel(self.address)

    def lines(self) -> list[dict]:
        """The log; every line is an object. One that is being written is left out."""
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]

    def metrics(self) -> str:
        return get(self.admin, "/metrics")[1]

    def health(self, name: str) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT).status

    def stop(self) -> None:
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(TIMEOUT) == 0, self.log.read_text()
        finally:
            self.process.kill()


def engine(folder: Path, fault: str = "none") -> str:
    """A command line of a capture engine without a model: random tensors of 2 layers, 2 KV heads."""
    tensors = folder / "tensors"
    if not tensors.exists():
        import numpy

        values = numpy.random.default_rng(1).standard_normal(2 * 2 * 4 * 2 * 64 * 64)
        values.astype(numpy.float32).tofile(tensors)
    return shlex.join(
        ["/usr/bin/python3", str(FAKE_ENGINE), "--geometry", "2,2,4,64", "--tensors", str(tensors), "--fault", fault]
    )


def calibrate(worker: Service, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    """Calibrates models/tiny; the calibration's name."""
    request = calibration_service_pb2.CalibrateModelRequest(
        model="models/tiny",
        model_path="tiny",
        text="Some text.",
        options=calibration_service_pb2.CalibrateOptions(sequences=2, sequence_length=64),
    )
    stub = calibration_service_pb2_grpc.CalibrationServiceStub(worker.channel)
    *_, last = stub.CalibrateModel(request, metadata=metadata, timeout=TIMEOUT)
    return last.calibration


def bit_map_request() -> allocation_service_pb2.GetBitMapRequest:
    return allocation_service_pb2.GetBitMapRequest(model="models/tiny", budget=bit_map_pb2.Budget(effective_bits=4))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """An allocator and a worker that have calibrated and answered."""
    folder = tmp_path_factory.mktemp("services")
    (folder / "models" / "tiny").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        allocator = Service(folder, "ratequant-allocator", "--data-dir", str(folder / "data"))
        stack.callback(allocator.stop)
        worker = Service(
            folder,
            "ratequant-worker",
            *("--model-root", str(folder / "models"), "--spool-dir", str(folder / "spool")),
            *("--allocator", allocator.address, "--engine", engine(folder)),
        )
        stack.callback(worker.stop)
        calibrate(worker, (("x-request-id", "from-the-client"), ("traceparent", f"00-{TRACE}-{SPAN}-01")))
        stub = allocation_service_pb2_grpc.AllocationServiceStub(allocator.channel)
        for _ in range(3):
            stub.GetBitMap(bit_map_request(), timeout=TIMEOUT)
        yield allocator, worker


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name}; deploy/local/setup --tests installs it")
    return path


def rules() -> list[dict]:
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("arguments", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_accepts_the_rules_and_their_tests(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire_and_to_stay_quiet() -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
    expected = [sample["labels"] for test in tests for check in test["promql_expr_test"] for sample in check["exp_samples"]]
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert len(alerts) >= 10
    for alert in alerts:
        assert any(f'"{alert}"' in labels for labels in expected), f"{alert} is never seen to fire"
    quiet = sum(not check["exp_samples"] for test in tests for check in test["promql_expr_test"])
    assert quiet >= len(alerts) - 4


def named_metrics() -> set[str]:
    """Names of all metrics in rules and dashboard, but those that the rules themselves record."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    texts += [rule["expr"] for rule in rules()]
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    # Label values in quotes aren't metrics.
    words = {word for text in texts for word in re.findall(r"[a-z_:][a-z0-9_:]*", re.sub(r'"[^"]*"', '""', text))}
    used = {word for word in words if re.match(r"(job:)?(ratequant|grpc|process)_[a-z]", word)}
    assert {name for name in used if ":" in name} <= recorded
    return {name for name in used - recorded if name not in {"grpc_method", "grpc_status", "grpc_target"}}


def test_rules_and_dashboard_name_only_metrics_that_are_exported(services: tuple[Service, Service]) -> None:
    text = "".join(service.metrics() for service in services)
    # Only with TLS, and only once a call was refused: their own tests look at them.
    missing = named_metrics() - set(re.findall(r"^([a-z0-9_]+)(?:\{| )", text, re.MULTILINE))
    assert missing == {"ratequant_tls_certificate_expiry_seconds", "ratequant_calls_refused_total"}


def test_metrics_are_well_formed_and_count(services: tuple[Service, Service]) -> None:
    allocator, worker = services
    for service in services:
        done = subprocess.run(
            [tool("promtool"), "check", "metrics"], input=service.metrics(), capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stdout + done.stderr
    text = allocator.metrics()
    get_bit_map = 'grpc_method="ratequant.v1.AllocationService/GetBitMap"'
    started = re.search(rf"^grpc_server_call_started_total{{{get_bit_map}}} (\d+)$", text, re.MULTILINE)
    assert started is not None and int(started[1]) >= 3
    assert re.search(rf'^grpc_server_call_duration_seconds_count{{{get_bit_map},grpc_status="OK"}} [1-9]', text, re.MULTILINE)
    assert re.search(r'^ratequant_bit_map_cache_hits_total{tier="memory"} [1-9]', text, re.MULTILINE)
    assert re.search(r"^ratequant_solve_duration_seconds_count [1-9]", text, re.MULTILINE)
    assert re.search(r'^ratequant_rocksdb_keys{table="calibrations"} [1-9]', text, re.MULTILINE)
    assert re.search(r'^ratequant_build_info{.*program="ratequant-allocator".*} 1$', text, re.MULTILINE)
    text = worker.metrics()
    assert re.search(r'^ratequant_calibrations_total{outcome="published"} [1-9]', text, re.MULTILINE)
    # 2 sequences x 2 layers x (K, V, dK, dV) of 2 heads x 64 tokens x 64 channels in float32
    swept = 2 * 2 * 4 * 2 * 64 * 64 * 4
    swept_bytes = re.search(r"^ratequant_sweep_bytes_total (\d+)$", text, re.MULTILINE)
    assert swept_bytes is not None and int(swept_bytes[1]) % swept == 0 and int(swept_bytes[1]) > 0
    assert re.search(r'^grpc_client_attempt_duration_seconds_count{.*grpc_status="OK".*} [1-9]', text, re.MULTILINE)


def test_request_id_and_trace_go_from_the_client_through_the_worker_to_the_allocator(
    services: tuple[Service, Service],
) -> None:
    allocator, worker = services

    def call_line(service: Service, method: str) -> dict:
        found = wait_for(
            lambda: [line for line in service.lines() if line.get("method") == f"ratequant.v1.{method}"], method
        )
        return found[0]

    at_worker = call_line(worker, "CalibrationService/CalibrateModel")
    at_allocator = call_line(allocator, "RegistryService/CreateCalibration")
    for line in (at_worker, at_allocator):
        assert line["request_id"] == "from-the-client"
        assert line["trace_id"] == TRACE
        assert line["code"] == "OK" and line["level"] == "info" and line["seconds"] > 0
    assert at_worker["parent_span_id"] == SPAN
    assert at_allocator["parent_span_id"] == at_worker["span_id"] != SPAN
    # What the worker says while it works on the call names it as well.
    published = [line for line in worker.lines() if " published, " in line["message"]]
    assert published and published[0]["request_id"] == "from-the-client"


@pytest.mark.parametrize("sent", [None, "mine-1", "two words", "x" * 129])
def test_an_error_brings_the_request_id_that_the_log_names(services: tuple[Service, Service], sent: str | None) -> None:
    allocator, _ = services
    stub = allocation_service_pb2_grpc.AllocationServiceStub(allocator.channel)
    request = bit_map_request()
    request.model = "models/nobody-knows"
    metadata = () if sent is None else (("x-request-id", sent), ("traceparent", "00-not-a-trace-01"))
    with pytest.raises(grpc.RpcError) as failed:
        stub.GetBitMap(request, metadata=metadata, timeout=TIMEOUT)
    answered = dict(failed.value.trailing_metadata())["x-request-id"]
    assert answered == sent if sent == "mine-1" else re.fullmatch("[0-9a-f]{32}", answered)
    line = wait_for(lambda: [line for line in allocator.lines() if line.get("request_id") == answered], answered)[0]
    assert (line["code"], line["reason"]) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert "trace_id" not in line


def test_dependencies_have_a_health_of_their_own(services: tuple[Service, Service], tmp_path: Path) -> None:
    allocator, worker = services
    serving = health_pb2.HealthCheckResponse.SERVING
    for service, name in ((allocator, "store"), (worker, "device"), (worker, "allocator")):
        wait_for(lambda service=service, name=name: service.health(name) == serving, name)
        assert re.search(rf'^ratequant_dependency_up{{dependency="{name}"}} 1$', service.metrics(), re.MULTILINE)
    # A worker whose allocator isn't there is ready all the same: it spools.
    (tmp_path / "models").mkdir()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        alone = Service(
            tmp_path,
            "ratequant-worker",
            *("--model-root", str(tmp_path / "models"), "--spool-dir", str(tmp_path / "spool")),
            *("--allocator", f"127.0.0.1:{nobody.getsockname()[1]}"),
        )
        try:
            wait_for(lambda: get(alone.admin, "/readyz")[0] == 200, "ready")
            wait_for(lambda: any("allocator isn't well" in line["message"] for line in alone.lines()), "the log")
            assert alone.health("allocator") == health_pb2.HealthCheckResponse.NOT_SERVING
            assert alone.health("") == serving
        finally:
            alone.stop()


def test_the_admin_port_answers_what_it_should_and_nothing_else(services: tuple[Service, Service]) -> None:
    for service in services:
        assert get(service.admin, "/healthz") == (200, "ok\n")
        wait_for(lambda service=service: get(service.admin, "/readyz") == (200, "ready\n"), "ready")
        status, page = get(service.admin, "/debug")
        assert status == 200 and len(page) < 256 << 10
        for part in ("ready: ready", "\nup ", "Recent warnings and errors", "ratequant_queue_waiting 0", "log-format"):
            assert part in page
        for path in ("/", "/metrics/x", "/debug/../etc/passwd", "/xmetrics"):
            assert get(service.admin, path)[0] == 404, path
        connection = http.client.HTTPConnection("127.0.0.1", service.admin, timeout=TIMEOUT)
        connection.request("POST", "/metrics", body="x")
        assert connection.getresponse().status >= 400
        connection.close()


def test_a_failed_calibration_is_counted_and_shown(services: tuple[Service, Service], tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    worker = Service(
        tmp_path,
        "ratequant-worker",
        *("--model-root", str(tmp_path / "models"), "--spool-dir", str(tmp_path / "spool")),
        *("--no-publish", "--engine", "/bin/false"),
    )
    try:
        with pytest.raises(grpc.RpcError):
            calibrate(worker, (("x-request-id", "fails"),))
        wait_for(lambda: 'ratequant_calibrations_total{outcome="failed"} 1' in worker.metrics(), "the count")
        # Logged once it has been counted.
        page = wait_for(
            lambda: "calibration failed" in (text := get(worker.admin, "/debug")[1]) and text, "the line on the page"
        )
        assert re.search(r'"message":"calibration failed[^\n]*"request_id":"fails"', page)
    finally:
        worker.stop()


def test_prometheus_scrapes_the_services_and_evaluates_the_rules(
    services: tuple[Service, Service], tmp_path: Path
) -> None:
    prometheus = tool("prometheus")
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(MONITORING / "rules.yaml")],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{service.admin}"]}]}
            for name, service in zip(("allocator", "worker"), services)
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(tmp_path / "log", "wb")
    process = subprocess.Popen(
        [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )

    def ask(path: str) -> dict:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            status, body = get(port, path)
        except OSError:
            return {}
        return json.loads(body)["data"] if status == 200 else {}

    try:
        wait_for(
            lambda: (targets := ask("/api/v1/targets").get("activeTargets", [])) and all(t["health"] == "up" for t in targets),
            "both targets up",
        )
        query = "/api/v1/query?query=count(ratequant_build_info)"
        wait_for(lambda: [s["value"][1] for s in ask(query).get("result", [])] == ["2"], "both services' metrics")

        def evaluated() -> list[dict]:
            loaded = [rule for group in ask("/api/v1/rules").get("groups", []) for rule in group["rules"]]
            return loaded if loaded and all(rule["health"] == "ok" for rule in loaded) else []

        loaded = wait_for(evaluated, "every rule evaluated without an error")
        assert len(loaded) == len(rules())
        # Nothing is wrong with them. The disk is this machine's, and not theirs.
        firing = {rule["name"] for rule in loaded if rule.get("state") == "firing"}
        assert not firing - {"RateQuantDiskFull", "RateQuantDiskFillingUp"}
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        log.close()
