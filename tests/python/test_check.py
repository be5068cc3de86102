"""`python -m ratequant check`: does a stored calibration still fit?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ratequant import Client
from ratequant.__main__ import main
from ratequant.check.drift import compare
from ratequant.services import ServiceError, Services, find_binary
from ratequant.v1 import bit_map_pb2, calibration_pb2, quantizer_pb2

WIDTHS = [2, 3, 4]
KIVI, RTN = (quantizer_pb2.Quantizer(kind=kind) for kind in (quantizer_pb2.Quantizer.KIVI, quantizer_pb2.Quantizer.RTN))


def calibration(kivi: np.ndarray, rtn: np.ndarray, **changes) -> calibration_pb2.Calibration:
    """2 layers of 1 head; tables [4 groups, 3 widths]."""
    made = calibration_pb2.Calibration(
        geometry={"layers": 2, "kv_heads": 1, "query_heads": 2, "head_dim": 64},
        capture={"model_digest": "a" * 64},
        tables=[
            {"quantizer": quantizer, "widths": WIDTHS, "c2": table.ravel()} for quantizer, table in ((KIVI, kivi), (RTN, rtn))
        ],
    )
    made.MergeFrom(calibration_pb2.Calibration(**changes))
    return made


def bit_map(index: list[int], width: list[int]) -> bit_map_pb2.BitMap:
    return bit_map_pb2.BitMap(quantizers=[KIVI, RTN], quantizer_index=index, width=width)


BASE = np.outer([8.0, 4.0, 2.0, 1.0], [1.0, 0.25, 0.0625])


def test_the_stored_map_is_judged_by_the_new_tables() -> None:
    first, second = BASE * 2, BASE * 4
    stored_map = bit_map([0, 1, 0, 0], [2, 3, 4, 16])
    maps = [bit_map([0] * 4, [3] * 4), bit_map([1] * 4, [2] * 4)]
    drift = compare(calibration(BASE, BASE), stored_map, [calibration(first, first), calibration(second, second)], maps)
    on_base = 0.5 * (8 + 4 * 0.25 + 2 * 0.0625)
    assert drift.stored_loss == pytest.approx(3 * on_base)
    # The first half's map is judged on the second half, and the other way round.
    assert drift.new_loss == pytest.approx((4 * 0.5 * 15 * 0.25 + 2 * 0.5 * 15) / 2)
    assert drift.excess == pytest.approx(drift.stored_loss / drift.new_loss - 1)
    assert drift.rank_correlation == pytest.approx(1)
    assert [group.ratio for group in drift.groups] == pytest.approx([3, 3, 3])  # Not the one in fp16.


def test_changed_groups_come_first_and_change_the_ranks() -> None:
    turned = BASE[::-1]
    keep = bit_map([0] * 4, [2] * 4)
    drift = compare(calibration(BASE, BASE), keep, [calibration(turned, turned)] * 2, [keep, keep])
    assert drift.rank_correlation == pytest.approx(-1)
    assert drift.excess == pytest.approx(0)
    assert {(g.layer, g.head, g.tensor) for g in drift.groups[:2]} == {(0, 0, "K"), (1, 0, "V")}
    assert sorted(g.ratio for g in drift.groups[:2]) == pytest.approx([1 / 8, 8])


def test_another_model_is_refused() -> None:
    keep = bit_map([0] * 4, [2] * 4)
    stored = calibration(BASE, BASE)
    for other, text in (
        (calibration(BASE, BASE, geometry={"head_dim": 128}), "another geometry"),
        (calibration(BASE, BASE, capture={"model_digest": "b" * 64}), "other model files"),
    ):
        with pytest.raises(ValueError, match=text):
            compare(stored, keep, [stored, other], [keep, keep])
    with pytest.raises(ValueError, match="kivi at 8 bits wasn't measured"):
        compare(stored, bit_map([0] * 4, [8] * 4), [stored, stored], [keep, keep])


def test_the_command_says_yes_or_no(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        find_binary("ratequant-worker")
    except ServiceError as error:
        pytest.skip(str(error))
    text = tiny_text.read_text()
    with Services(tiny_model.parent) as services, Client(services.endpoint, services.worker_endpoint) as client:
        list(client.calibrate_model("tiny", str(tiny_model), text, sequences=4, sequence_length=64))
        common = ["check", "--endpoint", services.endpoint, "--model", str(tiny_model), "--text", str(tiny_text)]
        common += ["--sequences", "4", "--sequence-length", "64", "--effective-bits", "4"]
        # A generous tolerance and one that nothing meets: what is measured is noisy in a tiny model.
        assert main([*common, "--model-name", "tiny", "--tolerance", "100", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["fits"] and -1 < found["excess"] and 0 < found["new_loss"] and found["rank_correlation"] > 0.5
        assert main([*common, "--model-name", "tiny", "--tolerance=-0.999"]) == 3
        assert "does not fit" in capsys.readouterr().out
        assert main([*common, "--model-name", "absent"]) == 1
        assert "absent" in capsys.readouterr().err
        assert main([*common, "--model-name", "tiny", "--sequences", "3"]) == 1
        assert "3 sequences can't be halved" in capsys.readouterr().err
