"""Runs a program in a root that make_root.py made, as a container engine would: the
root read only, a user without privileges, and nothing else of this machine's files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

USER = 65532
# Arguments: the root; pairs of a folder of this machine and where it is mounted; "--";
# the command that changes the root. /proc, /dev and /tmp are what every
# engine gives.
_ENTER = r"""
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero urandom random; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  shift 2
done
shift
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs "$@"
"""


def need_namespaces() -> None:
    """Skips where this user may not make namespaces, mount and change its root."""
    probe = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", "mount -t tmpfs tmpfs /mnt && chroot / true"]
    run = subprocess.run(probe, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip(f"needs the privilege to mount and chroot: {run.stderr.strip()}")


class RootProcess(contextlib.AbstractContextManager):
    """A program running inside a root; killed with everything it started at the end.

    Attributes:
      log: the file that its output goes to.
    """

    def __init__(self, root: Path, mounts: dict[Path, str], command: list[str], log: Path, **environment: str):
        """
        Args:
          root: the root's folder; it stays as it is.
          mounts: folders of this machine, and where they are mounted, writable.
          command: the program inside the root and its arguments.
          log: file for its output.
          environment: the program's whole environment.
        """
        for folder in mounts:
            subprocess.run(["chown", "-R", f"{USER}:{USER}", str(folder)], check=True)
        self.log = log
        self._command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        self._command += ["sh", "-c", _ENTER, "sh", str(root)]
        for source, target in mounts.items():
            self._command += [str(source), target]
        variables = [f"{name}={value}" for name, value in environment.items()]
        change = ["/usr/sbin/chroot", f"--userspec={USER}:{USER}", str(root)]
        self._command += ["--", "env", "-i", *variables, *change, *command]

    def __enter__(self) -> RootProcess:
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(self, *exc) -> None:
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """Fails the test when the program has ended."""
        if self._process.poll() is not None:
            pytest.fail(f"ended with {self._process.returncode}:\n{self.log.read_text()}")

    def wait(self, timeout: float) -> int:
        """The program's exit status, once it ends by itself."""
        return self._process.wait(timeout)

    def program(self) -> int:
        """The program's process id, seen from outside."""
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def terminate(self, timeout: float) -> int:
        """Sends SIGTERM to the program and returns its exit status."""
        os.kill(self.program(), signal.SIGTERM)
        return self._process.wait(timeout)
