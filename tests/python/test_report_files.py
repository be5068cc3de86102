"""Reports from JSON files alone, and comparisons."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from google.protobuf import json_format

from ratequant.__main__ import main
from ratequant.report.estimate import Estimate, format_estimate
from ratequant.report.prediction import Prediction
from ratequant.v1 import allocation_service_pb2, evaluation_pb2
from report_browser import Found
from report_fixture import QUANTIZERS, geometry, make_bit_map, make_calibration, make_curve, make_evaluation

SHAPE = geometry()
GROUPS = 30 * 3 * 2


def write(folder: Path, name: str, message) -> str:
    """A file as `ratequant ... --json` writes it: defaults printed, proto names."""
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )  # fmt: skip
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two calibrations, three maps and two curves."""
    write(tmp_path, "before.json", make_calibration(SHAPE))
    write(tmp_path, "after.json", make_calibration(SHAPE, 0.6))
    for bits in (3, 4, 6):
        write(tmp_path, f"{bits}-bits.json", make_bit_map(SHAPE, bits, bits))
    write(tmp_path, "kivi.json", make_curve(1.0, 1.0, False))
    write(tmp_path, "mix.json", make_curve(0.25, 0.5, False))
    return tmp_path


def report(folder: Path, *names: str) -> Found:
    out = folder / "report.html"
    assert main(["report", *(str(folder / name) for name in names), "--out", str(out)]) == 0
    return Found(out.read_text(encoding="utf-8"))


def failure(capsys: pytest.CaptureFixture, folder: Path, *names: str) -> str:
    out = folder / "report.html"
    assert main(["report", *(str(folder / name) for name in names), "--out", str(out)]) == 1
    assert not out.exists()
    return capsys.readouterr().err


def test_a_calibration_alone_shows_each_quantizer_and_its_standard_errors(folder):
    found = report(folder, "before.json")
    assert found.counts["distortion-map", "rect"] == len(QUANTIZERS) * GROUPS
    table = make_calibration(SHAPE).tables[1]
    value, stderr = table.c2[0 * 8 + 2] / 2, table.c2_standard_error[0 * 8 + 2] / 2
    title = next(title for title in found.titles["distortion-map"] if title.startswith("layer 0, head 0, K") and
                 format_estimate(Estimate(value, stderr)) in title)  # fmt: skip
    assert title.count("±") == 3
    # Each quantizer's eight uniform widths, at what CacheConfig counts for them.
    kivi = [title for title in found.titles["rate-distortion"] if title.startswith("kivi, ")]
    pages, page_bits, both_fp16 = 127, 4.0, 36
    expected = (pages * 32 * page_bits + both_fp16 * 16) / 4096
    assert len(kivi) == 8 and f"kivi, 3 bits, {expected:.3f} effective" in kivi[2]
    row = found.row("rate-distortion", "3 bits")
    total = [sum(t.c2[2::8]) / 2 for t in make_calibration(SHAPE).tables]
    assert row[2::2] == [format_estimate(Estimate(value, value / 10)) for value in total]
    assert not {"bit-map", "perplexity", "map-comparison", "calibration-comparison"} & found.cells.keys()


def test_calibrations_without_standard_errors_are_shown_without(folder):
    old = make_calibration(SHAPE)
    for table in old.tables:
        del table.c2_standard_error[:]
    write(folder, "before.json", old)
    found = report(folder, "before.json", "3-bits.json")
    assert not any("±" in title for title in found.titles["distortion-map"])
    assert ("bit-map", "path.error") not in found.counts


def test_a_maps_layers_add_up_to_its_predicted_loss(folder):
    found = report(folder, "before.json", "3-bits.json")
    tables, bit_map = make_calibration(SHAPE).tables, make_bit_map(SHAPE, 3, 3)
    losses = [
        tables[bit_map.quantizer_index[group]].c2[group * 8 + bit_map.width[group] - 1] / 2 for group in range(GROUPS)
    ]
    # Errors of groups are added.
    total = Estimate(math.fsum(losses), math.fsum(losses) / 10)
    assert found.row("bit-map", "all 30 layers")[3:] == [format_estimate(total), "100%"]
    layers = [math.fsum(losses[layer * 6 : layer * 6 + 6]) for layer in range(30)]
    worst = max(range(30), key=layers.__getitem__)
    assert found.row("bit-map", f"layer {worst}")[3] == format_estimate(Estimate(layers[worst], layers[worst] / 10))
    title = next(title for title in found.titles["bit-map"] if title.startswith("layer 0, K: ") and "nats" in title)
    assert format_estimate(Estimate(sum(losses[0:6:2]), sum(losses[0:6:2]) / 10)) in title
    # Codes and overhead, averaged over heads.
    overhead = {"rtn": 0.25, "kivi": 1.0, "quarot": 0.5, "turboquant": 0.25}
    stored = [bit_map.width[group] + overhead[QUANTIZERS[bit_map.quantizer_index[group]]] for group in (0, 2, 4)]
    assert f"layer 0, K: {sum(stored) / 3:.3g} bits" in found.titles["bit-map"]


def test_a_map_without_its_calibration_shows_its_codes(folder):
    found = report(folder, "3-bits.json")
    assert found.counts["bit-map", "rect.bar"] == 2 * 30
    assert "distortion-map" not in found.cells and "rate-distortion" not in found.cells


def test_a_group_in_fp16_costs_no_loss_and_sixteen_bits(folder):
    bit_map = make_bit_map(SHAPE, 3, 3)
    bit_map.width[:] = [16] * GROUPS
    write(folder, "3-bits.json", bit_map)
    found = report(folder, "before.json", "3-bits.json")
    assert "layer 0, K: 16 bits" in found.titles["bit-map"]
    assert found.row("bit-map", "all 30 layers")[3] == "0"


def test_maps_are_compared_with_the_first(folder):
    found = report(folder, "before.json", "after.json", "3-bits.json", "6-bits.json", "4-bits.json")
    assert found.counts["map-comparison", "input"] == 2
    assert found.counts["map-comparison", "rect"] == 2 * GROUPS
    three, six = make_bit_map(SHAPE, 3, 3), make_bit_map(SHAPE, 6, 6)
    wider = sum(after > before for before, after in zip(three.width, six.width, strict=True))
    changed = sum(a != b for a, b in zip(three.quantizer_index, six.quantizer_index, strict=True))
    assert found.row("map-comparison", "wider in 6-bits") == ["wider in 6-bits", str(wider)]
    assert found.row("map-comparison", "of another quantizer")[1] == str(changed)
    assert found.row("map-comparison", "effective bits")[1:] == ["3.000", "6.000", "4.000"]
    # Each calibration tells what each map costs by its tables.
    for name, change in (("before", 0.0), ("after", 0.6)):
        prediction = Prediction(make_calibration(SHAPE, change))
        row = found.row("map-comparison", f"predicted loss, nats per token, by {name}")
        assert row[1] == format_estimate(Estimate.total(prediction.map_losses(three)))
        assert row[2] == format_estimate(Estimate.total(prediction.map_losses(six)))


def test_calibrations_are_compared_group_by_group(folder):
    found = report(folder, "before.json", "after.json")
    before, after = (Prediction(make_calibration(SHAPE, change)) for change in (0.0, 0.6))
    row = found.row("calibration-comparison", "kivi, 3 bits")
    pairs = [(before.group_loss("kivi", g, 3), after.group_loss("kivi", g, 3)) for g in range(GROUPS)]
    apart = sum(abs(b.value - a.value) > 2 * math.hypot(a.stderr, b.stderr) for a, b in pairs)
    assert 0 < apart < GROUPS and row[5] == f"{apart} of {GROUPS}"
    # Only those cells have a figure.
    assert found.counts["calibration-comparison", "text.cell"] == len(QUANTIZERS) * apart
    assert row[1] == format_estimate(Estimate.total(a for a, _ in pairs))
    assert 0.0 < float(row[3]) < 1.0


def test_a_calibration_compared_with_itself_agrees(folder):
    found = report(folder, "before.json", "before.json")
    row = found.row("calibration-comparison", "rtn, 3 bits")
    assert row[3:] == ["1.000", "1.00", f"0 of {GROUPS}"]


def test_curves_are_named_by_their_files_beside_uniform_widths_of_the_rest(folder):
    found = report(folder, "before.json", "kivi.json", "mix.json")
    titles = found.titles["rate-distortion"]
    assert any(title.startswith("mix, ") for title in titles)
    assert not any(title.startswith("kivi, 3 bits") for title in titles)
    assert sum(title.startswith("rtn, ") for title in titles) == 8
    assert found.counts["rate-distortion", "polyline.curve"] == 2 + 3


def test_recorded_evaluations_of_the_maps_are_drawn_with_error_bars(folder, capsys):
    response = allocation_service_pb2.ListEvaluationsResponse()
    for bits, loss in ((3, 0.04), (6, 0.01)):
        name = make_bit_map(SHAPE, bits, bits).name
        response.evaluations.add(
            name=f"{name}/evaluations/{'e' * 64}", text="held-out.txt", text_digest="d", tokens=2000, fp_perplexity=20.0,
            uniform_perplexity=22.0, perplexity=20.0 * math.exp(loss), loss_minus_fp=loss, loss_minus_fp_stderr=0.005,
            loss_minus_uniform=loss - math.log(1.1), loss_minus_uniform_stderr=0.004,
        )  # fmt: skip
    write(folder, "evaluations.json", response)
    found = report(folder, "3-bits.json", "6-bits.json", "evaluations.json")
    assert found.counts["perplexity", "path.error"] == 2
    assert f"{20 * math.exp(0.04):.2f}" in next(t for t in found.titles["perplexity"] if "3.00 effective bits" in t)
    (folder / "report.html").unlink()
    assert "none of the 2 recorded evaluations" in failure(capsys, folder, "evaluations.json", "4-bits.json")
    response.evaluations[0].text_digest, response.evaluations[0].text = "other", "other.txt"
    write(folder, "evaluations.json", response)
    assert "other.txt, held-out.txt" in failure(capsys, folder, "3-bits.json", "6-bits.json", "evaluations.json")


def test_an_evaluations_files_may_come_in_any_order_with_further_ones(folder):
    rows, bundle = make_evaluation()
    (folder / "rows.json").write_text(json.dumps(rows))
    bundle.write(folder / "bundle.json")
    found = report(folder, "after.json", "bundle.json", "rows.json")
    assert found.counts["perplexity", "table"] == 2
    assert found.counts["bit-map", "input"] == 4
    assert "bundle" in found.row("calibration-comparison", "all groups, nats per token ± standard error")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "nothing to report on"),
        (("before.json", "after.json", "before.json"), "3 calibrations (before, after, before (2))"),
        (("3-bits.json",) * 7, "7 bit maps"),
        (("before.json", "small.json"), "'small' is of 2 layers × 1 KV heads × 64 channels"),
        (("unknown.json",), "unknown.json' is nothing that a report can show; supported is the JSON of"),
        (("broken.json",), "broken.json' isn't what `ratequant bitmap get` writes as JSON"),
        (("none.json",), "none.json"),
    ],
)
def test_what_cannot_be_shown_is_told(folder, capsys, names, message):
    write(folder, "small.json", make_bit_map(geometry(2, 1), 3, 1))
    write(folder, "unknown.json", evaluation_pb2.Evaluation(name="x"))
    (folder / "broken.json").write_text('{"quantizer_index": ["many"], "width": []}')
    assert message in failure(capsys, folder, *names)


def test_an_endpoint_without_rows_is_told(tmp_path, capsys):
    assert main(["report", "--endpoint", "127.0.0.1:1", "--out", str(tmp_path / "r.html")]) == 1
    assert "--json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.01234, 0.00456, "0.0123 ± 0.0046"),
        (12.7, 1.4, "12.7 ± 1.4"),
        (0.00364, 0.0003, "0.00364 ± 0.00030"),
        (1234.0, 56.0, "1234 ± 56"),
        (2.5e-7, 1e-8, "(2.50 ± 0.10)·10⁻⁷"),
        (0.5, None, "0.5"),
        (0.0, 0.0, "0"),
    ],
)
def test_estimates_are_written_to_two_digits_of_their_error(value, stderr, text):
    assert format_estimate(Estimate(value, stderr)) == text
