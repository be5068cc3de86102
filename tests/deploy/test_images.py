"""The images' contents: made from this build, started as a container would be, and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from root_process import USER, RootProcess, need_namespaces
from sample import calibration
from serving import ROOT, wait_until_serving

from ratequant import Client

MAKE_ROOT = ROOT / "deploy/docker/make_root.py"
SHELLS = {"sh", "bash", "dash", "busybox", "ash", "zsh", "apt", "dpkg", "ldconfig", "pip"}


def make_root(kind: str, out: Path) -> Path:
    """The root of an image, made as the Containerfile makes it."""
    run = subprocess.run(
        [sys.executable, MAKE_ROOT, kind, out],
        capture_output=True,
        text=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
    )
    assert run.returncode == 0, run.stderr
    print(run.stdout.strip())
    return out


@pytest.fixture(scope="module")
def allocator_root(tmp_path_factory) -> Path:
    """The allocator's image, not to be changed."""
    return make_root("allocator", tmp_path_factory.mktemp("allocator") / "root")


@pytest.fixture(scope="module")
def worker_root(tmp_path_factory) -> Path:
    """The worker's image, not to be changed."""
    return make_root("worker", tmp_path_factory.mktemp("worker") / "root")


def containerfile_environment(target: str) -> dict[str, str]:
    """What the Containerfile's ENV of a final image sets."""
    text = (ROOT / "deploy/docker/Containerfile").read_text().replace("\\\n", " ")
    stage = re.search(rf"^FROM scratch AS {target}$(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL).group(1)
    words = re.search(r"^ENV (.*)$", stage, re.MULTILINE).group(1).split()
    return dict(word.split("=", 1) for word in words)


def names(root: Path) -> set[str]:
    return {path.name for path in (root / "usr/bin").iterdir()}


def bom(root: Path) -> dict:
    (document,) = (root / "usr/share/sbom").iterdir()
    return json.loads(document.read_text())


def size_mib(root: Path) -> float:
    return sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and not p.is_symlink()) / 2**20


def test_the_allocator_serves_from_a_read_only_root_without_a_shell(allocator_root, tmp_path):
    need_namespaces()
    data = tmp_path / "data"
    data.mkdir()
    data_dir = "/var/lib/ratequant"
    command = ["/usr/bin/ratequant-allocator", "--data-dir", f"{data_dir}/data", "--backup-dir", f"{data_dir}/backups"]
    command += ["--address", "127.0.0.1:0", "--port-file", f"{data_dir}/port"]
    with RootProcess(allocator_root, {data: data_dir}, command, tmp_path / "log") as process:
        endpoint = wait_until_serving(data / "port", process.check)
        status = Path(f"/proc/{process.program()}/status").read_text()
        assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s+{USER}\s+{USER}$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        with Client(endpoint) as client:
            stored = client.create_calibration("Tiny", calibration())
            bit_map = client.get_bit_map("Tiny", effective_bits=4)
        assert bit_map.calibration == stored.name and bit_map.effective_bits <= 4
        backup = subprocess.run(
            [ROOT / "build/bin/ratequant", "--endpoint", endpoint, "admin", "backup", "first"], capture_output=True
        )
        assert backup.returncode == 0 and (data / "backups/first").is_dir()
        assert process.terminate(60) == 0, process.log.read_text()


def test_nothing_else_of_the_root_can_be_written(allocator_root, tmp_path):
    need_namespaces()
    command = ["/usr/bin/ratequant-allocator", "--data-dir", "/etc/data", "--address", "127.0.0.1:0"]
    with RootProcess(allocator_root, {}, command, tmp_path / "log") as process:
        assert process.wait(60) == 4
    assert "/etc/data" in process.log.read_text()


def test_the_allocators_image_has_only_its_programs(allocator_root):
    assert names(allocator_root) == {"ratequant-allocator", "ratequant"}
    assert size_mib(allocator_root) < 64


def test_the_sbom_names_the_owner_of_every_library(allocator_root):
    document = bom(allocator_root)
    packages = {package["name"]: package for package in document["packages"]}
    assert document["spdxVersion"] == "SPDX-2.3" and document["name"] == "ratequant-allocator"
    relations = {(r["relationshipType"], r["relatedSpdxElement"]) for r in document["relationships"]}
    owners = _owners(p for p in (allocator_root / "usr/lib").rglob("*.so*") if not p.is_symlink())
    assert len(owners) > 10
    for owner in owners:
        assert packages[owner]["versionInfo"] == _installed_version(owner)
        assert ("CONTAINS", packages[owner]["SPDXID"]) in relations
        assert (allocator_root / f"usr/share/doc/{owner}/copyright").is_file()
    assert ("STATIC_LINK", packages["libcli11-dev"]["SPDXID"]) in relations


def _owners(libraries) -> set[str]:
    """Packages that have files of these names in the loader's folders, as dpkg says."""
    run = subprocess.run(["dpkg-query", "-S", *(f"*/{p.name}" for p in libraries)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return {line.split(":")[0] for line in run.stdout.splitlines() if re.search(r": (/usr)?/lib(64)?/[^/]+/[^/]+$", line)}


def _installed_version(package: str) -> str:
    return subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}\n", package], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]


def test_the_same_build_gives_the_same_root(allocator_root, tmp_path):
    again = make_root("allocator", tmp_path / "again")
    run = subprocess.run(["diff", "-r", "--no-dereference", allocator_root, again], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_a_missing_program_is_told(tmp_path):
    run = subprocess.run(
        [sys.executable, MAKE_ROOT, "allocator", tmp_path / "out", "--bin", tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert f"ratequant-allocator isn't in {tmp_path}" in run.stderr


def test_a_cuda_image_is_refused_without_a_torch_for_cuda(tmp_path):
    run = subprocess.run(
        [sys.executable, MAKE_ROOT, "worker-cuda", tmp_path / "out"], capture_output=True, text=True
    )
    assert run.returncode == 1 and "a torch without CUDA" in run.stderr


def test_the_worker_calibrates_a_model_from_a_read_only_root_without_a_shell(worker_root, tmp_path):
    need_namespaces()
    from tiny_models import TEXT, save_tiny_model

    spool, models = tmp_path / "spool", tmp_path / "models"
    spool.mkdir()
    save_tiny_model(models / "tiny")
    environment = containerfile_environment("worker") | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = ["/usr/bin/ratequant-worker", "--model-root", "/models", "--no-publish"]
    command += ["--spool-dir", "/var/lib/ratequant/spool", "--port-file", "/var/lib/ratequant/port"]
    command += ["--address", "127.0.0.1:0", "--threads", "1"]
    mounts = {spool: "/var/lib/ratequant", models: "/models"}
    with RootProcess(worker_root, mounts, command, tmp_path / "log", **environment) as process:
        endpoint = wait_until_serving(spool / "port", process.check)
        with Client(worker_endpoint=endpoint) as client:
            options = {"sequences": 2, "sequence_length": 64, "quantizers": ("rtn",)}
            *_, last = client.calibrate_model("Tiny", "tiny", TEXT, **options)
        assert last.phase == "DONE" and not last.published
        assert process.terminate(60) == 0, process.log.read_text()


def test_the_workers_image_has_python_and_what_the_engine_needs_alone(worker_root):
    assert names(worker_root) == {"ratequant-worker", "python3", "python3.11"}
    inside = {path.name for path in worker_root.rglob("*") if os.access(path, os.X_OK) and path.is_file()}
    assert not inside & SHELLS
    python = {p["name"] for p in bom(worker_root)["packages"] if p["SPDXID"].startswith("SPDXRef-Pypi")}
    assert {"torch", "transformers", "numpy"} <= python and not python & {"pytest", "pip", "grpcio-tools"}
    assert size_mib(worker_root) < 1024
