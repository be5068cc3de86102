"""Starts the allocator and the calibration worker beside this process.

For evaluations and tests that need both services and have none at hand; a
deployment runs them itself.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import ratequant

BIN_DIR_VARIABLE = "RATEQUANT_BIN_DIR"

# From util-linux, part of every Linux system: the service gets SIGTERM when the
# thread that started it ends.
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")


class ServiceError(RuntimeError):
    """A service that isn't there, did not start, or ended; the message holds
    the end of its log."""


def find_binary(name: str) -> str:
    """Path of one of RateQuant's programs: from $RATEQUANT_BIN_DIR when that is
    set, else from build/bin of the source tree, else from PATH.

    Raises:
      ServiceError: it is nowhere; names the places.
    """
    override = os.environ.get(BIN_DIR_VARIABLE)
    source_tree = pathlib.Path(__file__).resolve().parents[3]
    folders = [pathlib.Path(override)] if override else [source_tree / "build" / "bin"]
    for folder in folders:
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    if not override and (found := shutil.which(name)):
        return found
    places = ", ".join(str(folder) for folder in folders) + ("" if override else ", PATH")
    raise ServiceError(f"{name} isn't in {places}; build it (deploy/local/setup) or set {BIN_DIR_VARIABLE}")


class Services(contextlib.AbstractContextManager):
    """Runs `ratequant-allocator` and `ratequant-worker` on loopback, each on a
    port the system picks, and stops both at the end in any case: on leaving the
    context, on an exception, on Ctrl-C, and when this process dies.

    Not thread-safe. The thread that enters the context must outlive it, since
    the system ends the services with it.

    Attributes, inside the context:
      endpoint: the allocator as host:port.
      worker_endpoint: the worker as host:port.
      data_dir: folder with the allocator's data, the worker's spool, and logs.
    """

    def __init__(
        self,
        model_root: str | os.PathLike,
        data_dir: str | os.PathLike | None = None,
        *,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
        worker_arguments: tuple[str, ...] = (),
        engine_arguments: tuple[str, ...] = (),
    ):
        """
        Args:
          model_root: the folder the worker may read models from.
          data_dir: kept when given (and made when missing); without it a
            temporary folder is used and removed.
          start_timeout: seconds a service may take until it serves.
          stop_timeout: seconds a service may take to end before it is killed.
          worker_arguments: further arguments of `ratequant-worker`.
          engine_arguments: further arguments of its capture engine.
        """
        self._model_root = str(model_root)
        self._given_data_dir = data_dir
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._worker_arguments = worker_arguments
        self._engine_arguments = engine_arguments
        self._processes: list[_Process] = []
        self._cleanup = contextlib.ExitStack()
        self.endpoint = self.worker_endpoint = ""
        self.data_dir = pathlib.Path()

    def __enter__(self) -> Services:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc) -> None:
        self._stop()

    def check(self) -> None:
        """Raises ServiceError when a service has ended by itself."""
        for process in self._processes:
            process.check()

    def _start(self) -> None:
        if self._given_data_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="ratequant-")
            self.data_dir = pathlib.Path(self._cleanup.enter_context(temporary))
        else:
            self.data_dir = pathlib.Path(self._given_data_dir)
            self.data_dir.mkdir(parents=True, exist_ok=True)
        self.endpoint = self._launch("ratequant-allocator", ["--data-dir", str(self.data_dir / "allocator")])
        engine = shlex.join([sys.executable, "-m", "ratequant.capture.engine", *self._engine_arguments])
        self.worker_endpoint = self._launch(
            "ratequant-worker",
            ["--model-root", self._model_root, "--allocator", self.endpoint]
            + ["--spool-dir", str(self.data_dir / "spool"), "--engine", engine, "--shutdown-grace", "0"]
            + [*self._worker_arguments],
        )

    def _launch(self, name: str, arguments: list[str]) -> str:
        process = _Process(name, arguments, self.data_dir)
        self._processes.append(process)
        return process.wait_until_serving(self._start_timeout)

    def _stop(self) -> None:
        # The worker first: it publishes to the allocator.
        while self._processes:
            self._processes.pop().stop(self._stop_timeout)
        self._cleanup.close()


class _Process:
    """One running service."""

    def __init__(self, name: str, arguments: list[str], folder: pathlib.Path):
        self._name = name
        self._port_file = folder / f"{name}.port"
        self._log_path = folder / f"{name}.log"
        self._port_file.unlink(missing_ok=True)
        # setpriv ends the service with this process. Not preexec_fn: that forks, and
        # gRPC's fork handlers may wait for ever then; without it Python uses vfork.
        listen = ["--address", "127.0.0.1:0", "--port-file", str(self._port_file)]
        command = [*_END_WITH_PARENT, find_binary(name), *listen, *arguments]
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                # Ctrl-C must reach only this process, which then stops them in order.
                start_new_session=True,
            )

    def wait_until_serving(self, timeout: float) -> str:
        """Waits for health SERVING and returns host:port."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.check()
            port = self._port_file.read_text().strip() if self._port_file.exists() else ""
            if port and _is_serving(f"127.0.0.1:{port}"):
                return f"127.0.0.1:{port}"
            time.sleep(0.02)
        raise ServiceError(f"{self._name} did not serve within {timeout:g} s{self._log_tail()}")

    def check(self) -> None:
        status = self._process.poll()
        if status is not None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise ServiceError(f"{self._name} ended with {how}{self._log_tail()}")

    def stop(self, timeout: float) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            # A second Ctrl-C, or a service that doesn't listen.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _log_tail(self, lines: int = 20) -> str:
        text = self._log_path.read_text(errors="replace").rstrip()
        tail = "\n".join("  " + line for line in text.splitlines()[-lines:])
        return f"; the end of its log:\n{tail}" if tail else "; its log is empty"


def _is_serving(endpoint: str) -> bool:
    with grpc.insecure_channel(endpoint) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def _environment() -> dict[str, str]:
    """This environment, with the package importable for the capture engine."""
    package_parents = [str(pathlib.Path(path).parent) for path in ratequant.__path__]
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(package_parents + ([inherited] if inherited else []))
    return os.environ | {"PYTHONPATH": path}
