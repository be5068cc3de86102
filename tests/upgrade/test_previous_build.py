"""A previous build's programs beside this one's: tests/upgrade/run starts these."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from processes import CURRENT, ENGINE, command, running
from record import fill
from tiny_models import TEXT, save_tiny_model

PREVIOUS = "RATEQUANT_PREVIOUS_BUILD"
pytestmark = pytest.mark.skipif(
    PREVIOUS not in os.environ, reason=f"{PREVIOUS} names no build folder; see tests/upgrade/run"
)
# Reads of every kind, as the command of either build makes them.
READS = [
    ["models"],
    ["calibrations", "list", "--model", "Tiny"],
    ["bitmap", "get", "--model", "Tiny", "--effective-bits", "4"],
    ["bitmap", "get", "--model", "Other--Tiny", "--effective-bits", "2.5", "--policy", "narrow"],
    ["curve", "--model", "Tiny"],
    ["policy", "list"],
    ["evaluations", "list", "models/Tiny"],
]


def previous() -> Path:
    """The previous build's programs."""
    return Path(os.environ[PREVIOUS]).resolve() / "bin"


def answers(bin_dir: Path, endpoint: str) -> list[dict]:
    """What the command of a build shows of an allocator."""
    return [json.loads(command(bin_dir, endpoint, "--json", *words)) for words in READS]


def known_to(old, new):
    """`new` without what `old` doesn't have."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: known_to(old[key], value) for key, value in new.items() if key in old}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [known_to(a, b) for a, b in zip(old, new)]
    return new


@pytest.fixture
def pair(request):
    """Programs of the client's and of the server's build."""
    builds = {"previous": previous(), "current": CURRENT}
    return tuple(builds[name] for name in request.param)


BOTH_WAYS = pytest.mark.parametrize(
    "pair", [("previous", "current"), ("current", "previous")], indirect=True, ids=["old-client", "new-client"]
)


@BOTH_WAYS
def test_commands_and_allocators(pair, tmp_path):
    client, server = pair
    with running(server / "ratequant-allocator", tmp_path, "--data-dir", tmp_path / "data") as endpoint:
        fill(endpoint)
        same = answers(server, endpoint)
        other = answers(client, endpoint)
    old, new = (other, same) if client == previous() else (same, other)
    assert known_to(old, new) == old


@BOTH_WAYS
def test_workers_and_allocators(pair, tmp_path):
    worker_build, allocator_build = pair
    save_tiny_model(tmp_path / "models/tiny")
    (tmp_path / "text").write_text(TEXT)
    with running(allocator_build / "ratequant-allocator", tmp_path, "--data-dir", tmp_path / "data") as endpoint:
        arguments = ["--model-root", tmp_path / "models", "--spool-dir", tmp_path / "spool", "--engine", ENGINE]
        with running(worker_build / "ratequant-worker", tmp_path, "--allocator", endpoint, *arguments) as worker:
            options = ["--model", "Tiny", "--model-path", "tiny", "--text", tmp_path / "text", "--quantizer", "rtn"]
            options += ["--sequences", "2", "--sequence-length", "64"]
            command(CURRENT, endpoint, "calibrate", *options, worker=worker)
        shown = command(CURRENT, endpoint, "--json", "bitmap", "get", "--model", "Tiny", "--effective-bits", "8")
    assert json.loads(shown)["calibration"].startswith("models/Tiny/")


def test_a_store_goes_forth_and_back(tmp_path):
    data = tmp_path / "data"
    with running(previous() / "ratequant-allocator", tmp_path, "--data-dir", data) as endpoint:
        fill(endpoint)
        before = answers(previous(), endpoint)
    with running(CURRENT / "ratequant-allocator", tmp_path, "--data-dir", data) as endpoint:
        assert answers(previous(), endpoint) == before
    with running(previous() / "ratequant-allocator", tmp_path, "--data-dir", data) as endpoint:
        assert answers(previous(), endpoint) == before


def test_a_backup_goes_forth(tmp_path):
    arguments = ["--data-dir", tmp_path / "data", "--backup-dir", tmp_path / "backups"]
    with running(previous() / "ratequant-allocator", tmp_path, *arguments) as endpoint:
        fill(endpoint)
        before = answers(previous(), endpoint)
        command(CURRENT, endpoint, "admin", "backup", "old")
    with running(CURRENT / "ratequant-allocator", tmp_path, "--data-dir", tmp_path / "backups/old") as endpoint:
        assert answers(previous(), endpoint) == before
