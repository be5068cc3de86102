"""`python -m ratequant capture inspect` and `calibrate`: recorded captures, read with suspicion and calibrated from."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ratequant import Client
from ratequant.__main__ import main
from ratequant.capture import calibrate
from ratequant.capture.calibrate import calibrate_capture
from ratequant.capture.capture_reader import CaptureFileError, CaptureReader
from ratequant.capture.record import RecordOptions, record
from ratequant.errors import RateQuantError
from ratequant.services import ServiceError, Services, find_binary

SEQUENCES, LENGTH = 2, 64
SINKS, WINDOW = 4, 32


@pytest.fixture(scope="module")
def capture(tiny_model: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capture") / "tiny.safetensors"
    record(RecordOptions(tiny_model, tiny_text, path, SEQUENCES, LENGTH, gradients=True))
    return path


@pytest.fixture(scope="module")
def client(tiny_model: Path) -> Iterator[Client]:
    try:
        find_binary("ratequant-worker")
    except ServiceError as error:
        pytest.skip(str(error))
    with Services(tiny_model.parent) as services:
        with Client(services.endpoint, services.worker_endpoint) as connected:
            yield connected


@pytest.mark.parametrize("attention_output", [False, True])
def test_every_way_gives_the_same_calibration(
    client: Client, capture: Path, tiny_model: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch, attention_output: bool
) -> None:
    options = {"sequences": SEQUENCES, "sequence_length": LENGTH, "attention_output": attention_output}
    # In shared memory, from the engine beside the worker.
    *_, engine = client.calibrate_model("tiny", str(tiny_model), tiny_text.read_text(), **options)
    with CaptureReader(capture) as reader:
        *_, file = calibrate_capture(client, reader, model="tiny", attention_output=attention_output)
        # In pieces that end in the middle of numbers.
        monkeypatch.setattr(calibrate, "_PIECE_BYTES", 1001)
        *_, pieces = calibrate_capture(client, reader, model="tiny", attention_output=attention_output)
    assert engine.phase == "DONE" and engine.published
    assert file.calibration == pieces.calibration == engine.calibration
    assert client.get_calibration("tiny").capture.mean_nll > 0


def rtn(rows: np.ndarray, width: int) -> np.ndarray:
    """[tokens, dim] through rtn: a symmetric fp16 scale a token, the sinks as they are."""
    most = 2 ** (width - 1) - 1
    scale = (np.abs(rows).max(1, keepdims=True) / np.float32(most)).astype(np.float16).astype(np.float32)
    decoded = np.clip(np.rint(rows / scale), -most, most) * scale
    decoded[:SINKS] = rows[:SINKS]
    return decoded


def attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of one query, [dim], after `keys` and `values`, [tokens, dim]."""
    scores = keys @ query / np.sqrt(query.size)
    weights = np.exp(scores - scores.max())
    return weights @ values / weights.sum()


def test_d2_is_the_change_of_attention_along_its_gradient(client: Client, capture: Path) -> None:
    with CaptureReader(capture) as reader:
        *_, done = calibrate_capture(client, reader, model="d2", quantizers=["rtn"], attention_output=True)
        calibration = client.get_calibration("d2")
        assert calibration.name == done.calibration
        kinds = ("key", "value", "query", "output_gradient")
        layers = [
            [reader.tensor(sequence, 1, kind).double().numpy() for kind in kinds] for sequence in range(SEQUENCES)
        ]
    assert calibration.capture.attention_output and calibration.capture.attention_window == WINDOW
    width, head = 4, 1
    changes = {"key": [], "value": []}
    for keys, values, queries, gradients in layers:
        own = {"key": keys[head], "value": values[head]}
        decoded = {kind: rtn(rows.astype(np.float32), width) for kind, rows in own.items()}
        for t in range(SINKS, LENGTH):
            for kind in changes:
                mixed = dict(own)
                mixed[kind] = np.concatenate([decoded[kind][: max(0, t + 1 - WINDOW)], own[kind][max(0, t + 1 - WINDOW) :]])
                changes[kind].append(
                    sum(
                        gradients[j, t]
                        @ (
                            attention(queries[j, t], mixed["key"][: t + 1], mixed["value"][: t + 1])
                            - attention(queries[j, t], own["key"][: t + 1], own["value"][: t + 1])
                        )
                        for j in (2, 3)
                    )
                )
    d2 = np.reshape(calibration.tables[0].d2, (3, 2, 2, 8))[1, head, :, width - 1]
    for found, kind in zip(d2, changes, strict=True):
        assert found == pytest.approx(np.mean(np.square(changes[kind])), rel=1e-3)


def test_maps_minimise_d2_only_where_it_was_measured(client: Client, capture: Path) -> None:
    with CaptureReader(capture) as reader:
        list(calibrate_capture(client, reader, model="with", attention_output=True))
        list(calibrate_capture(client, reader, model="without"))
    calibration = client.get_calibration("with")
    bit_map = client.get_bit_map("with", code_bits=3, quantizers=["rtn"], objective="attention-output")
    d2 = np.reshape(calibration.tables[0].d2, (-1, 8))
    assert bit_map.objective_value == pytest.approx(sum(d2[g, w - 1] for g, w in enumerate(bit_map.width)))
    with pytest.raises(RateQuantError) as error:
        client.get_bit_map("without", code_bits=3, quantizers=["rtn"], objective="attention-output")
    assert error.value.reason == "OBJECTIVE_NOT_CALIBRATED"


def test_the_command_calibrates_and_says_what_was_stored(
    client: Client, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = client._worker_endpoint
    assert main(["capture", "calibrate", str(capture), "--worker", worker, "--model", "org/other"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("models/org--other/calibrations/")
    assert "done" in printed.err.splitlines()
    assert "warning: Only 128 calibration tokens" in printed.err
    assert main(["capture", "calibrate", str(capture), "--worker", worker, "--quantizer", "gptq"]) == 1
    assert "gptq" in capsys.readouterr().err


def test_a_capture_without_gradients_is_refused(
    client: Client, tiny_model: Path, tiny_text: Path, tmp_path: Path
) -> None:
    path = tmp_path / "no_gradients.safetensors"
    record(RecordOptions(tiny_model, tiny_text, path, SEQUENCES, LENGTH))
    with CaptureReader(path) as reader, pytest.raises(CaptureFileError, match="--gradients"):
        next(calibrate_capture(client, reader))


def test_a_value_that_isnt_finite_is_named_by_its_place(client: Client, capture: Path, tmp_path: Path) -> None:
    spoiled = bytearray(capture.read_bytes())
    length = struct.unpack("<Q", spoiled[:8])[0]
    header = json.loads(spoiled[8 : 8 + length])
    entry = header["sequence.1.layer.0.value"]
    _, tokens, dim = entry["shape"]
    at = 8 + length + entry["data_offsets"][0] + 4 * (5 * dim + 3)  # Head 0, token 5, channel 3.
    spoiled[at : at + 4] = struct.pack("<f", float("nan"))
    path = tmp_path / "nan.safetensors"
    path.write_bytes(spoiled)
    with CaptureReader(path) as reader, pytest.raises(RateQuantError) as error:
        list(calibrate_capture(client, reader))
    assert error.value.reason == "NON_FINITE_CAPTURE"
    for part in ("sequence 1", "layer 0", "head 0", "V", "token 5", "channel 3"):
        assert part in str(error.value)


def test_inspect_says_what_is_in_a_capture(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", "inspect", str(capture)]) == 0
    shown = capsys.readouterr().out
    assert "gradients        yes" in shown and f"sequence length  {LENGTH}" in shown
    assert main(["capture", "inspect", "--json", str(capture)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["sequences"] == SEQUENCES and len(described["loss_sum"]) == SEQUENCES


def rewrite(capture: Path, out: Path, change) -> Path:
    """The capture with another header."""
    data = capture.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("__metadata__"), "no 'ratequant_capture'"),
        (lambda h: h["__metadata__"].update(ratequant_capture="2"), "format '2'"),
        (lambda h: h["__metadata__"].update(dtype="float64"), "dtype 'float64'"),
        (lambda h: h["__metadata__"].update(layers="0"), "layers '0'"),
        (lambda h: h["__metadata__"].update(layers="9" * 30), "isn't a number from 1"),
        (lambda h: h["__metadata__"].update(layers="1000"), "the metadata announces"),
        (lambda h: h["__metadata__"].update(kv_heads="3"), "no multiple of kv_heads"),
        (lambda h: h["__metadata__"].update(loss_sum="1.0,nan"), "losses"),
        (lambda h: h["__metadata__"].update(head_dim="40"), "not \\["),
        (lambda h: h.update({"other": h.pop("sequence.0.layer.1.key")}), "sequence.0.layer.1.key is missing"),
        (lambda h: h["sequence.0.layer.0.key"].update(dtype="F16"), "not a safetensors file"),
        (lambda h: h["sequence.0.layer.0.key"].update(data_offsets=[0, 1 << 60]), "not a safetensors file"),
    ],
)
def test_what_isnt_a_capture_is_refused(capture: Path, tmp_path: Path, change, message: str) -> None:
    path = rewrite(capture, tmp_path / "changed.safetensors", change)
    with pytest.raises(CaptureFileError, match=message):
        CaptureReader(path)


def overlap(header: dict) -> None:
    """Two tensors on the same bytes."""
    header["sequence.0.layer.0.key"]["data_offsets"] = header["sequence.0.layer.0.value"]["data_offsets"]


def shift(header: dict) -> None:
    """A byte that is nobody's."""
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [offset + 1 for offset in entry["data_offsets"]]


@pytest.mark.parametrize(
    "change",
    [
        overlap,
        shift,
        lambda h: h["sequence.0.layer.0.key"]["data_offsets"].reverse(),
        lambda h: h["sequence.0.layer.0.key"].update(data_offsets=[-8, 8]),
        lambda h: h["sequence.0.layer.0.key"].update(data_offsets=[(1 << 64) - 1, 8]),
        lambda h: h["sequence.0.layer.0.key"].update(shape=[1 << 32, 1 << 32, 1 << 32]),
        lambda h: h["sequence.0.layer.0.key"].update(shape=[-1]),
        lambda h: h["sequence.0.layer.0.key"].update(dtype="I128"),
        lambda h: h["__metadata__"].update(layers=3),
        lambda h: h["__metadata__"].update(layers={"1": "2"}),
    ],
)
def test_headers_that_lie_about_the_file_are_refused(capture: Path, tmp_path: Path, change) -> None:
    path = rewrite(capture, tmp_path / "changed.safetensors", change)
    with pytest.raises(CaptureFileError, match="not a safetensors file"):
        CaptureReader(path)


def raw(header: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        raw(b"{}", length=(1 << 64) - 1),
        raw(b"{}", length=1 << 40),
        raw(b"{}", length=3),
        raw(b""),
        raw(b"[" * 1_000_000),
        raw(b'{"a":' * 500_000),
        raw(b'{"a":"' + b"x" * 1_000_000),
        raw(b'{"a\xff":{}}'),
        raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
        raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', data=b"12345"),
    ],
    ids=lambda content: f"{content[:16]!r} of {len(content)}",
)
def test_files_that_are_bombs_or_cut_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(content)
    with pytest.raises(CaptureFileError, match="not a safetensors file"):
        CaptureReader(path)


def test_a_name_twice_is_no_capture(capture: Path, tmp_path: Path) -> None:
    data = capture.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].rstrip()
    twice = header[:-1] + b',"sequence.0.layer.0.key":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    path = tmp_path / "twice.safetensors"
    path.write_bytes(raw(twice + b" " * (-len(twice) % 8), data=data[8 + length :]))
    with pytest.raises(CaptureFileError):
        CaptureReader(path)


def test_no_bytes_make_the_reader_fail_otherwise(capture: Path, tmp_path: Path) -> None:
    data = capture.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    random.seed(1)
    path = tmp_path / "mutated.safetensors"
    meaningful = b'{}[]",:0129-.eE \\ntf\0\xff'
    refused = 0
    for _ in range(600):
        mutated = bytearray(data)
        for _ in range(random.randint(1, 4)):
            byte = random.choice(meaningful) if random.random() < 0.5 else random.randrange(256)
            mutated[random.randrange(8 + length)] = byte
        path.write_bytes(mutated[: random.choice([len(mutated), random.randrange(len(mutated))])])
        try:
            with CaptureReader(path) as reader:
                for sequence in range(reader.info.sequences):
                    for layer in range(reader.info.layers):
                        reader.tensor(sequence, layer, "key").sum()
        except CaptureFileError:
            refused += 1
    assert refused > 400
