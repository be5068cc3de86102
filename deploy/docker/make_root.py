#!/usr/bin/env python3
"""Makes the root file system of a container image: RateQuant's program, exactly
the libraries it is linked with, and an SBOM of them; no shell, no package
manager. The Containerfile and the tests both run this.

    deploy/docker/make_root.py allocator OUT [--bin build/bin]
    deploy/docker/make_root.py worker OUT [--bin build/bin] [--venv build/venv] [--generated build/python]
    deploy/docker/make_root.py worker-cuda OUT ...

worker-cuda is worker with a torch that runs on GPUs; its programs are built with
RATEQUANT_CUDA=ON.

Needs Debian 12 with the packages that the programs were built with. Exit status
1 and a message when something needed isn't there.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import debian
import python_tree
import sbom
from root_tree import RootError, RootTree

REPOSITORY = Path(__file__).resolve().parents[2]
# 65532 is the "nonroot" of distroless images; manifests name the number.
USER = 65532
PROGRAMS = {
    "allocator": ("ratequant-allocator", "ratequant"),
    "worker": ("ratequant-worker",),
    "worker-cuda": ("ratequant-worker",),
}
# Folders that a volume is mounted on; the root itself is read only.
VOLUMES = {
    "allocator": ("/var/lib/ratequant", "/tmp"),
    "worker": ("/var/lib/ratequant", "/models", "/tmp"),
    "worker-cuda": ("/var/lib/ratequant", "/models", "/tmp"),
}
# Their headers or archives are compiled into the programs.
COMPILED_IN = ("libcli11-dev", "nlohmann-json3-dev", "libspdlog-dev", "libhwy-dev", "libabsl-dev")
# What the capture engine imports; requirements come along.
ENGINE = ["torch", "transformers", "tokenizers", "safetensors", "numpy"]
SBOM_PATH = "/usr/share/sbom/{image}.spdx.json"


def make_root(kind: str, out: Path, bin_dir: Path, venv: Path, generated: Path) -> RootTree:
    """Fills `out` with the root of the image `kind`.

    Raises:
      RootError: something needed isn't there.
    """
    tree = RootTree(out)
    for program in PROGRAMS[kind]:
        if not (bin_dir / program).is_file():
            raise RootError(f"{program} isn't in {bin_dir}; build it first")
        tree.add_own(bin_dir / program, f"/usr/bin/{program}", 0o755)
    python = {}
    if kind != "allocator":
        distributions = python_tree.find_distributions(venv, ENGINE)
        python = distributions.versions
        _check_torch(kind, venv, python)
        python_tree.add_interpreter(tree)
        python_tree.add_distributions(tree, distributions)
        python_tree.add_package(tree, [REPOSITORY / "clients/python", generated])
    for folder in VOLUMES[kind]:
        tree.add_folder(folder, 0o1777 if folder == "/tmp" else 0o755)
    if os.geteuid() == 0:
        os.chown(out / "var/lib/ratequant", USER, USER)
    for folder in ("/dev", "/proc", "/sys"):
        tree.add_folder(folder)
    _add_accounts(tree)
    _add_papers(tree, f"ratequant-{kind}", python)
    return tree


def _check_torch(kind: str, venv: Path, python: dict[str, str]) -> None:
    """The wrong build of torch costs gigabytes, or the GPU."""
    cuda = any(name.startswith("nvidia-") for name in python)
    if cuda != (kind == "worker-cuda"):
        has = "a torch for CUDA" if cuda else "a torch without CUDA"
        raise RootError(f"{venv} has {has} ({python['torch']}), which is wrong for {kind}")


def _add_accounts(tree: RootTree) -> None:
    tree.add_text("/etc/passwd", f"root:x:0:0:root:/:/\nratequant:x:{USER}:{USER}:RateQuant:/tmp:/\n")
    tree.add_text("/etc/group", f"root:x:0:\nratequant:x:{USER}:\n")
    tree.add_text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    tree.add_debian("/usr/lib/os-release")
    (tree.folder / "etc/os-release").symlink_to("../usr/lib/os-release")


def _add_papers(tree: RootTree, image: str, python: dict[str, str]) -> None:
    """Licenses of everything inside, and the SBOM."""
    compiled_in = {debian.package(name) for name in COMPILED_IN}
    for package in tree.packages | compiled_in:
        source = Path(f"/usr/share/doc/{package.name}/copyright")
        if source.is_file():
            target = tree.folder / f"usr/share/doc/{package.name}/copyright"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    tree.add_own(REPOSITORY / "LICENSE", "/usr/share/doc/ratequant/copyright", 0o644)
    document = sbom.spdx(image, _version(), tree.packages, compiled_in, python)
    tree.add_text(SBOM_PATH.format(image=image), document)


def _version() -> str:
    found = re.search(r"project\([^)]*VERSION\s+([0-9.]+)", (REPOSITORY / "CMakeLists.txt").read_text())
    if found is None:
        raise RootError("CMakeLists.txt names no version")
    return found.group(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=sorted(PROGRAMS))
    parser.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder")
    parser.add_argument("--bin", type=Path, default=REPOSITORY / "build/bin", help="folder of the programs")
    parser.add_argument("--venv", type=Path, default=REPOSITORY / "build/venv", help="Python environment")
    parser.add_argument("--generated", type=Path, default=REPOSITORY / "build/python", help="generated modules")
    arguments = parser.parse_args()
    try:
        tree = make_root(arguments.kind, arguments.out, arguments.bin, arguments.venv, arguments.generated)
    except (RootError, LookupError, subprocess.CalledProcessError) as error:
        print(f"make_root: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {tree.bytes() / 2**20:.1f} MiB, {len(tree.packages)} Debian packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
