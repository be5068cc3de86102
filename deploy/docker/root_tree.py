"""A minimal root file system, filled file by file, that knows where each came from."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import debian

# Made by the loader itself, not files.
_VIRTUAL = ("linux-vdso.so.1", "linux-gate.so.1")
_ELF = b"\x7fELF"


class RootError(RuntimeError):
    """A root that can't be made; names the file and why."""


class RootTree:
    """A folder that becomes an image's root.

    Attributes:
      folder: where it lies.
      packages: the Debian packages that files were taken from.
    """

    def __init__(self, folder: Path):
        """`folder` is made; it must not exist or be empty."""
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RootError(f"{folder} isn't empty")
        self.folder = folder
        self.packages: set[debian.DebianPackage] = set()
        for name in ("bin", "lib", "lib64", "sbin"):
            (folder / "usr" / name).mkdir(parents=True)
            (folder / name).symlink_to(f"usr/{name}")

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """An empty folder, for something to be mounted on."""
        target = self._target(path)
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode)

    def add_text(self, path: str, text: str) -> None:
        """A file with this text."""
        target = self._target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def add_own(self, source: Path, path: str, mode: int) -> None:
        """A file that no package has, with the libraries it is linked with."""
        target = self._target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(mode)
        self._add_libraries(source)

    def add_debian(self, path: str) -> None:
        """A file of a Debian package, links on the way followed and kept, with
        the libraries it is linked with.

        Raises:
          RootError: no package has it.
        """
        if self._target(path).exists() or self._target(path).is_symlink():
            return
        self._record_owner(path)
        if os.path.islink(path):
            link = os.readlink(path)
            self._place(path, lambda target: target.symlink_to(link))
            destination = os.path.normpath(os.path.join(os.path.dirname(debian.merged(path)), link))
            if os.path.isfile(destination):
                self.add_debian(debian.merged(destination))
            return
        self._place(path, lambda target: shutil.copy2(path, target))
        self._add_libraries(Path(path))

    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(p.lstat().st_size for p in self.folder.rglob("*") if p.is_file() and not p.is_symlink())

    def _target(self, path: str) -> Path:
        return self.folder / debian.merged(path).lstrip("/")

    def _place(self, path: str, make) -> None:
        target = self._target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        make(target)

    def _record_owner(self, path: str) -> None:
        # A link in /usr/lib may be made by ldconfig: then what it names counts.
        found = debian.owner(path) or debian.owner(os.path.realpath(path))
        if found is None:
            raise RootError(f"no Debian package has {path}; the SBOM couldn't name where it is from")
        self.packages.add(found)

    def _add_libraries(self, source: Path) -> None:
        inside = source.resolve().parent
        for library in _libraries(source):
            # A Python wheel brings libraries of its own beside its modules.
            if debian.owner(library) is None and _beside(Path(library), inside):
                continue
            self.add_debian(library)


def _beside(library: Path, folder: Path) -> bool:
    site = next((parent for parent in folder.parents if parent.name == "site-packages"), None)
    return site is not None and library.resolve().is_relative_to(site)


@functools.cache
def _libraries(source: Path) -> tuple[str, ...]:
    """Paths of the shared libraries a file needs, all that they need included."""
    with open(source, "rb") as file:
        if file.read(4) != _ELF:
            return ()
    run = subprocess.run(["ldd", str(source)], capture_output=True, text=True)
    if "not a dynamic executable" in run.stderr or "statically linked" in run.stdout:
        return ()
    if run.returncode != 0:
        raise RootError(f"ldd {source}: {run.stderr.strip()}")
    found = []
    for line in run.stdout.splitlines():
        match = re.match(r"\s*(\S+)(?: => (.*?))?(?: \(0x[0-9a-f]+\))?$", line)
        name, path = match.group(1), match.group(2)
        if name in _VIRTUAL:
            continue
        if path == "not found":
            raise RootError(f"{source} needs {name}, which isn't on this machine")
        found.append(path or name)
    return tuple(found)
