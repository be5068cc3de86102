"""The report, in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ratequant.__main__ import main
from ratequant.evaluate import Bundle
from ratequant.report.axes import format_tick, linear_ticks, log_ticks
from ratequant.report.page import render
from ratequant.report.palette import quantizer_classes
from ratequant.report.source import shown_maps
from report_fixture import QUANTIZERS, make_evaluation

SECTIONS = ("summary", "bit-map", "perplexity", "rate-distortion", "distortion")


@dataclasses.dataclass
class Browser:
    """What headless Chromium made of a page."""

    dom: str
    console: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Opens a page and returns what the browser made of it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium; deploy/local/setup --tests installs it")

    def browse(page: Path, screenshot: Path | None = None) -> Browser:
        profile = tmp_path_factory.mktemp("profile")
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,3600",
            f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", f"--log-net-log={profile}/net.json",
        ]  # fmt: skip
        action = f"--screenshot={screenshot}" if screenshot else "--dump-dom"
        process = subprocess.run([*command, action, page.as_uri()], capture_output=True, text=True, timeout=180)
        assert process.returncode == 0, process.stderr
        console = [line for line in process.stderr.splitlines() if ":CONSOLE" in line]
        return Browser(process.stdout, console, _page_requests(Path(profile, "net.json").read_text()))

    return browse


def _page_requests(net_log: str) -> list[str]:
    """http(s) addresses in a Chromium network log that the page asked for; the
    browser's own services are on its vendor's hosts."""
    addresses = re.findall(r'"url":"(https?://[^"]+)"', net_log)
    return [address for address in addresses if not re.match(r"https?://[^/]*(google|gvt1|gstatic)[^/]*/", address)]


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


class Counter(HTMLParser):
    """Counts what lies in each section of a page."""

    def __init__(self):
        super().__init__()
        self.section, self.counts, self.titles = "", {}, {}
        self._in_title = False

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if attributes.get("id") in SECTIONS:
            self.section = attributes["id"]
        for name in (tag, *(f"{tag}.{c}" for c in attributes.get("class", "").split())):
            self.counts[self.section, name] = self.counts.get((self.section, name), 0) + 1
        self._in_title = tag == "title"

    def handle_data(self, data):
        if self._in_title:
            self.titles.setdefault(self.section, []).append(data)
            self._in_title = False


def count(html: str) -> Counter:
    counter = Counter()
    counter.feed(html)
    return counter


def test_the_browser_shows_every_figure_without_complaint_or_request(browse, page, evaluation):
    rows, bundle = evaluation
    browser = browse(page)
    assert not browser.console
    assert not browser.requests
    found = count(browser.dom)
    groups = len(next(iter(bundle.bit_maps.values())).width)
    maps = len({row["bit_map"] for row in rows if row["quantizer"] == "any" and row["strategy"] == "loss-projected"})
    # A cell for every layer, head and tensor of every map shown, with a tooltip.
    assert found.counts["bit-map", "text.cell"] == maps * groups
    assert sum("layer 29, head 2, V:" in title for title in found.titles["bit-map"]) == maps
    # Four quantizers at eight widths for K and for V.
    assert found.counts["distortion", "circle.point"] == 4 * 8 * 2
    assert found.counts["distortion", "polyline.curve"] == 4 * 3 * 2
    # Across quantizers, each quantizer, and uniform.
    assert found.counts["rate-distortion", "polyline.curve"] == 6
    assert found.counts["rate-distortion", "path.diamond"] == 4
    drawn = [row for row in rows if row["strategy"] in ("loss-projected", "uniform")]
    assert found.counts["perplexity", "circle.point"] == len(drawn)
    assert found.counts["perplexity", "path.error"] == len(drawn)
    # Two tables: the overview with bars, and all rows.
    assert found.counts["perplexity", "table"] == 2
    compared = [row for row in rows if row["strategy"] not in ("uniform", "fp32")]
    assert found.counts["perplexity", "circle.mean"] == len(compared)


def test_nothing_is_drawn_outside_its_picture_and_no_text_overlaps(browse, page, tmp_path):
    """Measured by the browser: the boxes of texts within each picture."""
    script = """<script>
    const faults = [];
    for (const svg of document.querySelectorAll('svg[width="100%"]')) {
      const frame = svg.getBoundingClientRect();
      if (frame.width === 0) continue;  // a map that isn't chosen
      const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
      boxes.forEach(([a, p], i) => {
        if (p.left < frame.left - 1 || p.right > frame.right + 1 || p.top < frame.top - 1 || p.bottom > frame.bottom + 1)
          faults.push('outside: ' + a);
        for (const [b, q] of boxes.slice(i + 1))
          if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2)
            faults.push('overlap: ' + a + ' | ' + b);
      });
    }
    if (document.documentElement.scrollWidth > innerWidth) faults.push('the page scrolls sideways');
    document.body.setAttribute('data-faults', JSON.stringify(faults));
    </script>"""
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace("</body>", script + "</body>"))
    faults = re.search(r'data-faults="([^"]*)"', browse(probe).dom)
    assert faults is not None
    assert faults.group(1) == "[]"


def test_the_screenshot_has_ink(browse, page, tmp_path):
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
    html = render(hostile, bundle)
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;" in html
    assert "Example &lt;numbers&gt; only." in html


def test_the_selected_map_is_the_one_nearest_to_three_bits(evaluation):
    rows, bundle = evaluation
    html = render(rows, bundle)
    checked = re.findall(r'<input type="radio" name="map" id="map-(\d)" checked="checked">', html)
    assert checked == ["1"]
    assert [row["budget"] for row, _ in shown_maps(rows, bundle.bit_maps)] == [2.5, 3.0, 3.5, 4.0]


def test_rows_alone_make_a_page_of_perplexities(files, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert main(["report", "--json", str(files[0]), "--out", str(out)]) == 0
    found = count(out.read_text())
    assert found.counts["perplexity", "table"] == 2
    assert ("bit-map", "svg") not in found.counts


def test_the_smallest_list_of_rows_that_scripts_write_is_enough(evaluation):
    keys = (
        "model", "text", "quantizer", "strategy", "code_bits", "effective_bits", "bytes_per_token", "tokens", "perplexity",
        "nll_diff_to_uniform", "nll_diff_stderr",
    )  # fmt: skip
    rows = [{key: row[key] for key in keys} for row in evaluation[0]]
    assert "25.21" in render(rows, None)
    only = [row for row in rows if row["strategy"] == "fp32"]
    assert "24.40" in render(only, None)


def test_what_is_beyond_use_is_left_out_of_the_chart_and_kept_in_the_table(evaluation):
    rows = [dict(row) for row in evaluation[0]]
    bad = next(row for row in rows if row["strategy"] == "uniform")
    bad["perplexity"] = 3781.6
    html = render(rows, None)
    drawn = [row for row in rows if row["strategy"] in ("loss-projected", "uniform")]
    assert count(html).counts["perplexity", "circle.point"] == len(drawn) - 1
    assert "One point above 49 only in the table." in html and "3781.60" in html
    hopeless = [row | {"perplexity": 900.0} if row["strategy"] != "fp32" else row for row in rows]
    assert f"{len(drawn)} points above 49 only in the table." in render(hopeless, None)


def test_single_quantizers_are_shown_where_nothing_is_mixed(evaluation):
    rows, bundle = evaluation
    single = [row for row in rows if row["quantizer"] in ("none", "kivi")]
    shown = shown_maps(single, bundle.bit_maps)
    assert 0 < len(shown) <= 6 and {row["quantizer"] for row, _ in shown} == {"kivi"}
    assert "kivi" in render(single, bundle)


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (80, 8), (24, 32)])
def test_models_of_any_shape_are_drawn(layers, heads):
    rows, bundle = make_evaluation(layers, heads)
    found = count(render(rows, bundle))
    assert found.counts["bit-map", "svg"] == 4
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
