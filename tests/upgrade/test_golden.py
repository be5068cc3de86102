"""This build reads what released ones wrote, and understands and is understood by them."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import tarfile
import time
from pathlib import Path

import grpc
import pytest
from api import Api, call, current_api, own
from breaking_changes import breaking_changes
from google.protobuf import descriptor_pb2
from processes import CURRENT, command, running

from ratequant import Client

RELEASES = sorted(Path(__file__).with_name("golden").iterdir())


@pytest.fixture(scope="module", params=RELEASES, ids=lambda folder: folder.name)
def release(request) -> Path:
    """The folder of what one released build wrote."""
    return request.param


def api_of(release: Path) -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString((release / "api.pb").read_bytes())


def exchange_of(release: Path) -> list[tuple[str, bytes, bytes]]:
    rows = json.loads((release / "exchange.json").read_text())
    return [(row["method"], *(base64.b64decode(row[part]) for part in ("request", "answer"))) for row in rows]


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder


@pytest.fixture
def endpoint(release, tmp_path):
    """This build's allocator on that build's store."""
    data = unpack(release / "store.tar.xz", tmp_path / "data")
    backups = tmp_path / "backups"
    with running(CURRENT / "ratequant-allocator", tmp_path, "--data-dir", data, "--backup-dir", backups) as address:
        yield address


def test_the_api_breaks_nobody(release):
    assert breaking_changes(own(api_of(release)), own(current_api())) == []


def test_old_stores_give_old_clients_the_same_answers(release, endpoint):
    api = Api(api_of(release))
    rows = exchange_of(release)
    assert len(rows) >= 10
    with grpc.insecure_channel(endpoint) as channel:
        for method, request, before in rows:
            now = api.answer(method, call(channel, method, request))
            # What was added since isn't for those who don't know it.
            now.DiscardUnknownFields()
            assert now == api.answer(method, before), method


def test_new_clients_read_old_stores(release, endpoint):
    with Client(endpoint) as client:
        assert [model.name for model in client.list_models()] == ["models/Other--Tiny", "models/Tiny"]
        assert len(list(client.list_calibrations("Tiny"))) == 2
        (evaluation,) = client.list_evaluations("Tiny")
        bit_map = client.get_bit_map("Tiny", effective_bits=4)
        assert evaluation.name.startswith(bit_map.name)
        # Not in the store yet: solved now from what was measured then.
        assert client.get_bit_map("Tiny", effective_bits=3.5).calibration == bit_map.calibration


def test_old_spools_are_published(release, endpoint, tmp_path):
    spool = unpack(release / "spool.tar.xz", tmp_path / "spool")
    (waiting,) = spool.glob("*.calibration")
    models = tmp_path / "models"
    models.mkdir()
    with running(
        CURRENT / "ratequant-worker", tmp_path, "--model-root", models, "--spool-dir", spool, "--allocator", endpoint
    ):
        with Client(endpoint) as client:
            _wait_until(lambda: "models/Spooled" in [model.name for model in client.list_models()])
            stored = client.get_calibration("Spooled")
            assert stored.name.rpartition("/")[2] in waiting.name
        _wait_until(lambda: not waiting.exists())


def _wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_backup_drill(release, endpoint, tmp_path):
    """The runbook's drill, with its commands: back up, lose the folder, restore, serve."""
    command(CURRENT, endpoint, "admin", "backup", "drill")
    with Client(endpoint) as client:
        before = client.get_bit_map("Tiny", effective_bits=4)
    restored = tmp_path / "restored"
    backup = tmp_path / "backups/drill"
    run = _allocator("inspect", "--data-dir", backup)
    assert "Tiny" in run
    _allocator("restore", "--backup", backup, "--data-dir", restored)
    second = tmp_path / "second"
    second.mkdir()
    with running(CURRENT / "ratequant-allocator", second, "--data-dir", restored) as address:
        with Client(address) as client:
            assert client.get_bit_map("Tiny", effective_bits=4) == before
            assert len(list(client.list_evaluations("Tiny"))) == 1
            assert len(list(client.list_calibrations("Tiny"))) == 2


def _allocator(*arguments: str | Path) -> str:
    words = [CURRENT / "ratequant-allocator", *arguments]
    run = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def _break(files, what: str) -> None:
    """Makes one breaking change."""
    messages = {message.name: message for file in files.file for message in file.message_type}
    geometry = messages["ModelGeometry"]
    service = next(s for file in files.file for s in file.service if s.name == "AllocationService")
    quantizer = messages["Quantizer"]
    match what:
        case "removed field":
            del geometry.field[0]
        case "renamed field":
            geometry.field[0].name = "depth"
        case "retyped field":
            geometry.field[0].type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
        case "renumbered field":
            geometry.field[0].number = 99
        case "repeated field":
            geometry.field[0].label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        case "removed message":
            file = next(f for f in files.file if geometry in f.message_type)
            file.message_type.remove(geometry)
        case "removed method":
            del service.method[0]
        case "streaming method":
            service.method[0].server_streaming = True
        case "method with another answer":
            service.method[0].output_type = ".ratequant.v1.ModelGeometry"
        case "renamed enum value":
            quantizer.enum_type[0].value[1].name = "ROUND"
        case "removed enum value":
            del quantizer.enum_type[0].value[1]
        case "oneof dissolved":
            messages["Budget"].field[0].ClearField("oneof_index")


@pytest.mark.parametrize(
    "what",
    [
        "removed field",
        "renamed field",
        "retyped field",
        "renumbered field",
        "repeated field",
        "removed message",
        "removed method",
        "streaming method",
        "method with another answer",
        "renamed enum value",
        "removed enum value",
        "oneof dissolved",
    ],
)
def test_breaking_changes_are_found(what):
    old = own(api_of(RELEASES[-1]))
    new = copy.deepcopy(old)
    _break(new, what)
    assert len(breaking_changes(old, new)) >= 1


def test_additions_break_nothing():
    old = own(api_of(RELEASES[-1]))
    new = copy.deepcopy(old)
    file = next(f for f in new.file if any(m.name == "ModelGeometry" for m in f.message_type))
    message = next(m for m in file.message_type if m.name == "ModelGeometry")
    message.field.add(name="more", json_name="more", number=99, type="TYPE_STRING", label="LABEL_OPTIONAL")
    file.message_type.add(name="Another")
    assert breaking_changes(old, new) == []


def test_a_reserved_field_may_go():
    old = own(api_of(RELEASES[-1]))
    new = copy.deepcopy(old)
    message = next(m for f in new.file for m in f.message_type if m.name == "ModelGeometry")
    number = message.field[0].number
    del message.field[0]
    message.reserved_range.add(start=number, end=number + 1)
    assert breaking_changes(old, new) == []
