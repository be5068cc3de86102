"""Starts the programs of any build, for tests of one version beside another."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from serving import ROOT, wait_until_serving

CURRENT = ROOT / "build/bin"
ENGINE = f"{sys.executable} -m ratequant.capture.engine"


@contextlib.contextmanager
def running(program: Path, folder: Path, *arguments: str | Path) -> Iterator[str]:
    """A service on a port the system picks; gives its host:port, and stops it.

    Args:
      program: the binary.
      folder: for its port file and log.
      arguments: its further flags.

    Raises:
      RuntimeError: it ended; has its log.
      TimeoutError: it doesn't serve.
    """
    port_file, log_path = folder / f"{program.name}.port", folder / f"{program.name}.log"
    port_file.unlink(missing_ok=True)
    command = ["setpriv", "--pdeathsig", "TERM", "--", program, "--address", "127.0.0.1:0", "--port-file", port_file]
    with open(log_path, "wb") as log:
        process = subprocess.Popen([*map(str, [*command, *arguments])], stdout=log, stderr=log, env=_environment())

    def check() -> None:
        if process.poll() is not None:
            raise RuntimeError(f"{program} ended with {process.returncode}:\n{log_path.read_text()}")

    try:
        yield wait_until_serving(port_file, check)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command(bin_dir: Path, endpoint: str, *arguments: str | Path, worker: str = "127.0.0.1:1") -> str:
    """What the `ratequant` command of a build prints.

    Raises:
      RuntimeError: it failed; has what it said.
    """
    words = [bin_dir / "ratequant", "--endpoint", endpoint, "--worker-endpoint", worker, *arguments]
    run = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {run.returncode}\n{run.stderr}")
    return run.stdout


def _environment() -> dict[str, str]:
    """With the Python package, for a worker's capture engine."""
    return os.environ | {"PYTHONPATH": f"{ROOT / 'clients/python'}:{ROOT / 'build/python'}"}
