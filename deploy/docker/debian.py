"""Which Debian package a file of this machine belongs to."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
from pathlib import Path

_INFO = Path("/var/lib/dpkg/info")
# Debian 12 has /bin, /lib, /lib64 and /sbin as links into /usr; many packages
# still list their files under the old names.
_MERGED = ("/bin/", "/lib/", "/lib64/", "/sbin/")


@dataclasses.dataclass(frozen=True, order=True)
class DebianPackage:
    """An installed binary package."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str


def merged(path: str) -> str:
    """The path with its first folder's link into /usr followed."""
    return "/usr" + path if path.startswith(_MERGED) else path


@functools.cache
def _owners() -> dict[str, str]:
    owners = {}
    for listing in _INFO.glob("*.list"):
        name = listing.name.removesuffix(".list")
        for line in listing.read_text(encoding="utf-8").splitlines():
            owners[merged(line)] = name
    return owners


@functools.cache
def _installed() -> dict[str, DebianPackage]:
    fields = ("binary:Package", "Package", "Version", "Architecture", "source:Package", "source:Version")
    form = "\t".join(f"${{{field}}}" for field in fields) + "\n"
    output = subprocess.run(["dpkg-query", "-W", "-f", form], check=True, capture_output=True, text=True).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    return {row[0].removesuffix(":all"): DebianPackage(*row[1:]) for row in rows}


def package(name: str) -> DebianPackage:
    """The installed package of that name.

    Raises:
      LookupError: it isn't installed.
    """
    installed = _installed()
    found = installed.get(name) or installed.get(f"{name}:{_architecture()}")
    if found is None:
        raise LookupError(f"the Debian package '{name}' isn't installed")
    return found


def owner(path: str) -> DebianPackage | None:
    """The package that a file, given by its path without links, belongs to;
    None when no package has it."""
    name = _owners().get(merged(path))
    return package(name) if name else None


def files(name: str) -> list[str]:
    """Paths of the regular files and links of an installed package."""
    found = [path for path, holder in _owners().items() if holder.split(":")[0] == name]
    return sorted(path for path in found if os.path.islink(path) or os.path.isfile(path))


@functools.cache
def _architecture() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
