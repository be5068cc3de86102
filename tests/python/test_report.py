"""The report, in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ratequant.__main__ import main
from ratequant.evaluate import Bundle
from ratequant.report.axes import format_tick, linear_ticks, log_ticks
from ratequant.report.page import render
from ratequant.report.palette import quantizer_classes
from ratequant.report.source import shown_maps
from report_browser import Found, browse
from report_fixture import QUANTIZERS, make_content, make_evaluation


@pytest.fixture(scope="module")
def evaluation():
    return make_evaluation()


@pytest.fixture(scope="module")
def files(evaluation, tmp_path_factory) -> tuple[Path, Path]:
    """The rows and the bundle as evaluate writes them."""
    folder = tmp_path_factory.mktemp("evaluation")
    rows, bundle = evaluation
    (folder / "rows.json").write_text(json.dumps(rows))
    bundle.write(folder / "bundle.json")
    return folder / "rows.json", folder / "bundle.json"


@pytest.fixture(scope="module")
def page(files, tmp_path_factory) -> Path:
    """The page the command makes."""
    rows, bundle = files
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", "--json", str(rows), "--bundle", str(bundle), "--out", str(out)]) == 0
    return out


def points(found: Found) -> int:
    """Points in the chart of perplexities."""
    return sum("within two standard errors" in title for title in found.titles["perplexity"])


def test_the_browser_shows_every_figure_without_complaint_or_request(page, evaluation):
    rows, bundle = evaluation
    browser = browse(page)
    assert not browser.console
    assert not browser.requests
    found = Found(browser.dom)
    groups = len(next(iter(bundle.bit_maps.values())).width)
    maps = len({row["bit_map"] for row in rows if row["quantizer"] == "any" and row["strategy"] == "loss-projected"})
    # A cell for every layer, head and tensor of every map shown, with a tooltip.
    assert found.counts["bit-map", "text.cell"] == maps * groups
    assert sum("layer 29, head 2, V:" in title for title in found.titles["bit-map"]) == maps
    # Four quantizers at eight widths for K and for V.
    assert len(found.titles["distortion"]) == 4 * 8 * 2
    assert found.counts["distortion", "polyline.curve"] == 4 * 3 * 2
    # Across quantizers, each quantizer, and uniform.
    assert found.counts["rate-distortion", "polyline.curve"] == 6
    assert found.counts["rate-distortion", "circle.measured"] == 4
    assert found.counts["distortion-map", "rect"] == 4 * groups
    # Bits and predicted loss of K and V, which is hatched over its bars.
    assert found.counts["bit-map", "rect.bar"] == maps * 30 * 4
    assert found.counts["bit-map", "rect.hatched"] == maps * 30 * 2
    assert found.counts["bit-map", "path.error"] == maps * 30 * 2
    drawn = [row for row in rows if row["strategy"] in ("loss-projected", "uniform")]
    assert points(found) == len(drawn)
    assert found.counts["perplexity", "path.error"] == len(drawn)
    # Two tables: the overview with bars, and all rows.
    assert found.counts["perplexity", "table"] == 2
    compared = [row for row in rows if row["strategy"] not in ("uniform", "fp32")]
    assert found.counts["perplexity", "circle.mean"] == len(compared)


def test_the_screenshot_has_ink(page, tmp_path):
    shot = tmp_path / "report.png"
    browse(page, shot)
    data = shot.read_bytes()
    assert data.startswith(b"\x89PNG")
    # An empty page of this size compresses to a few kilobytes.
    assert len(data) > 100_000


def test_the_page_needs_nothing_from_outside(page):
    html = page.read_text()
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//""", html)
    assert "<script" not in html


def test_text_from_files_cannot_become_markup(evaluation):
    rows, bundle = evaluation
    hostile = [row | {"model": "<script>alert(1)</script>", "text": "<img src=x>"} for row in rows]
    html = render(make_content(hostile, bundle))
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;" in html
    assert "Example &lt;numbers&gt; only." in html


def test_the_selected_map_is_the_one_nearest_to_three_bits(evaluation):
    rows, bundle = evaluation
    html = render(make_content(rows, bundle))
    checked = re.findall(r'<input type="radio" name="map" id="map-(\d)" checked="checked">', html)
    assert checked == ["1"]
    assert [row["budget"] for row, _ in shown_maps(rows, bundle.bit_maps)] == [2.5, 3.0, 3.5, 4.0]


def test_rows_alone_make_a_page_of_perplexities(files, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert main(["report", "--json", str(files[0]), "--out", str(out)]) == 0
    found = Found(out.read_text())
    assert found.counts["perplexity", "table"] == 2
    assert "bit-map" not in {section for section, _ in found.counts}


def test_the_smallest_list_of_rows_that_scripts_write_is_enough(evaluation):
    keys = (
        "model", "text", "quantizer", "strategy", "code_bits", "effective_bits", "bytes_per_token", "tokens", "perplexity",
        "nll_diff_to_uniform", "nll_diff_stderr",
    )  # fmt: skip
    rows = [{key: row[key] for key in keys} for row in evaluation[0]]
    assert "25.21" in render(make_content(rows))
    only = [row for row in rows if row["strategy"] == "fp32"]
    assert "24.40" in render(make_content(only))


def test_what_is_beyond_use_is_left_out_of_the_chart_and_kept_in_the_table(evaluation):
    rows = [dict(row) for row in evaluation[0]]
    bad = next(row for row in rows if row["strategy"] == "uniform")
    bad["perplexity"] = 3781.6
    html = render(make_content(rows))
    drawn = [row for row in rows if row["strategy"] in ("loss-projected", "uniform")]
    assert points(Found(html)) == len(drawn) - 1
    assert "One point above 49 only in the table." in html and "3781.60" in html
    hopeless = [row | {"perplexity": 900.0} if row["strategy"] != "fp32" else row for row in rows]
    assert f"{len(drawn)} points above 49 only in the table." in render(make_content(hopeless))


def test_single_quantizers_are_shown_where_nothing_is_mixed(evaluation):
    rows, bundle = evaluation
    single = [row for row in rows if row["quantizer"] in ("none", "kivi")]
    shown = shown_maps(single, bundle.bit_maps)
    assert 0 < len(shown) <= 6 and {row["quantizer"] for row, _ in shown} == {"kivi"}
    assert "kivi" in render(make_content(single, bundle))


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (80, 8), (24, 32)])
def test_models_of_any_shape_are_drawn(layers, heads):
    rows, bundle = make_evaluation(layers, heads)
    found = Found(render(make_content(rows, bundle)))
    assert found.counts["bit-map", "div.picture"] == 4 * 2
    assert sum(f"layer {layers - 1}, head {heads - 1}, K:" in title for title in found.titles["bit-map"]) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "isn't JSON"),
        ("{}", "isn't a list of rows"),
        ("[]", "isn't a list of rows"),
        ("[1]", "isn't a list of rows"),
        ('[{"model": "m"}]', "row 0 has no valid 'text'"),
    ],
)
def test_a_file_that_is_no_evaluation_is_told(tmp_path, capsys, content, message):
    (tmp_path / "rows.json").write_text(content)
    out = tmp_path / "report.html"
    assert main(["report", "--json", str(tmp_path / "rows.json"), "--out", str(out)]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("content", ["{", "{}", '{"ratequant_bundle": 2}', '{"ratequant_bundle": 1, "calibration": {"x": 1}}', "[]"])
def test_a_file_that_is_no_bundle_is_told(files, tmp_path, capsys, content):
    (tmp_path / "bundle.json").write_text(content)
    words = ["report", "--json", str(files[0]), "--bundle", str(tmp_path / "bundle.json"), "--out", str(tmp_path / "r.html")]
    assert main(words) == 1
    assert "isn't a bundle" in capsys.readouterr().err


def test_missing_files_are_told(files, tmp_path, capsys):
    assert main(["report", "--json", str(tmp_path / "none"), "--out", str(tmp_path / "r.html")]) == 1
    assert "none" in capsys.readouterr().err
    assert main(["report", "--json", str(files[0]), "--out", str(tmp_path / "none" / "r.html")]) == 1
    assert "none" in capsys.readouterr().err


def test_a_bundle_survives_the_round_trip(files, evaluation):
    assert Bundle.read(files[1]) == evaluation[1]


def test_quantizers_keep_their_colours_and_variants_get_their_own():
    classes = quantizer_classes(["any", *QUANTIZERS, "kivi:group_size=64", "kivi"])
    assert len(set(classes.values())) == 6
    assert classes["kivi"] == quantizer_classes(["kivi"])["kivi"]


@pytest.mark.parametrize(("low", "high"), [(24.3, 30.5), (24.38, 24.52), (13.3, 26.5), (1e-5, 11.0), (0.2, 900.0), (24, 3800)])
def test_log_ticks_lie_on_the_axis_and_are_few(low, high):
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert all(low * 0.998 <= tick <= high * 1.002 for tick in ticks)
    assert len({format_tick(tick) for tick in ticks}) == len(ticks)


def test_linear_ticks_are_round():
    assert linear_ticks(2.05, 4.2, 10) == [2.5, 3.0, 3.5, 4.0]
    assert format_tick(1e-5) == "10⁻⁵" and format_tick(24.5) == "24.5"
