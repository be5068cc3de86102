"""A Python interpreter and the packages that a program of it needs."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import debian
from root_tree import RootError, RootTree

# Of Debian's interpreter, without pip, tests and documentation.
_INTERPRETER = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
_LIBRARY = "/usr/lib/python3.11/"
_LEFT_OUT = ("ensurepip/", "idlelib/", "lib2to3/", "pydoc_data/", "tkinter/", "turtledemo/", "__pycache__/")
SITE = "/usr/lib/ratequant/site-packages"
PACKAGE = "/usr/lib/ratequant/python"
# What a distribution brings that nothing imports while a model is captured:
# C++ headers and the libraries of torch's own tests are 100 MB.
_UNUSED = ("torch/include/", "torch/test/", "torch/share/", "torch/bin/protoc", "torch/bin/test_")

# Runs in the environment's own interpreter: prints a line of name, version and
# file for every file of the distributions and of what they require.
_LIST_FILES = """
import importlib.metadata as metadata, re, sys
from packaging.requirements import Requirement
queue, seen = sys.argv[1:], set()
while queue:
    name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
    if name in seen:
        continue
    seen.add(name)
    distribution = metadata.distribution(name)
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            queue.append(requirement.name)
    for file in distribution.files:
        print(name, distribution.version, distribution.locate_file(file), file, sep="\\t")
"""


def add_interpreter(tree: RootTree) -> None:
    """Debian's Python 3.11 without pip, at /usr/bin/python3."""
    for package in _INTERPRETER:
        for path in debian.files(package):
            tail = path.removeprefix(_LIBRARY)
            if path.startswith(_LIBRARY) and not tail.startswith(_LEFT_OUT) and "/__pycache__/" not in tail:
                tree.add_debian(path)
    tree.add_debian("/usr/bin/python3.11")
    (tree.folder / "usr/bin/python3").symlink_to("python3.11")


@dataclasses.dataclass(frozen=True)
class Distributions:
    """Python distributions of a virtual environment.

    Attributes:
      versions: by name.
      files: where each file lies, by its path below site-packages.
    """

    versions: dict[str, str]
    files: dict[str, Path]


def find_distributions(environment: Path, names: list[str]) -> Distributions:
    """Distributions of a virtual environment, and what they require.

    Raises:
      RootError: one isn't installed there.
    """
    python = environment / "bin/python"
    if not python.exists():
        raise RootError(f"{environment} is no virtual environment; deploy/local/setup makes one")
    run = subprocess.run([python, "-c", _LIST_FILES, *names], capture_output=True, text=True)
    if run.returncode != 0:
        raise RootError(f"{environment}: {run.stderr.strip().splitlines()[-1]}")
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    kept = [row for row in rows if not row[3].startswith((*_UNUSED, "..")) and "__pycache__" not in row[3]]
    return Distributions({row[0]: row[1] for row in rows}, {row[3]: Path(row[2]) for row in kept})


def add_distributions(tree: RootTree, distributions: Distributions) -> None:
    """Copies distributions to SITE."""
    for path, source in distributions.files.items():
        mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
        tree.add_own(source, f"{SITE}/{path}", mode)


def add_package(tree: RootTree, folders: list[Path]) -> None:
    """RateQuant's own modules, generated ones included, at PACKAGE.

    Args:
      folders: folders that hold `ratequant`.
    """
    for folder in folders:
        sources = sorted(p for p in (folder / "ratequant").rglob("*") if p.suffix in (".py", ".css"))
        if not sources:
            raise RootError(f"{folder}/ratequant has no Python modules")
        for source in sources:
            tree.add_own(source, f"{PACKAGE}/{source.relative_to(folder)}", 0o644)
