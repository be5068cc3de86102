"""One of RateQuant's services as a process of a test."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from ratequant.services import find_binary


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
    """Looks again and again until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class ServiceProcess(contextlib.AbstractContextManager):
    """Starts a service on loopback, waits until it takes calls, and stops it at
    the end. `prefix` is a command that becomes the service."""

    def __init__(
        self,
        name: str,
        folder: pathlib.Path,
        *arguments: str,
        port: int = 0,
        timeout: float = 60,
        prefix: Sequence[str] = (),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        port_file = folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        command = [*prefix, find_binary(name), "--address", f"127.0.0.1:{port}", "--port-file", str(port_file), *arguments]
        # Nothing of whoever runs the tests.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RATEQUANT_ALLOCATOR_")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

        def serves() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return port_file.exists() and bool(port_file.read_text().strip())

        wait_until(serves, f"{name} takes no calls", timeout)
        self.port = int(port_file.read_text())
        self.endpoint = f"127.0.0.1:{self.port}"

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *exc) -> None:
        self.stop()
