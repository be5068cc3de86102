"""How the report looks, measured: nothing overlaps, all can be read, by anyone."""

from __future__ import annotations

import itertools
import re
from importlib import resources
from pathlib import Path

import pytest

from ratequant import report
from ratequant.quantizer import QUANTIZER_IDS
from ratequant.report.content import Content
from ratequant.report.page import render
from report_browser import browse
from report_fixture import QUANTIZERS, geometry, make_bit_map, make_calibration, make_content, make_evaluation

# Runs in the page: what a person would stumble over.
PROBE = """<script>
const faults = [];
const channel = value => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
const luminance = colour => {
  const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
};
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
for (const tab of document.querySelectorAll('.tabs > input:last-of-type')) tab.checked = true;
for (const svg of document.querySelectorAll('.picture > svg')) {
  const frame = svg.getBoundingClientRect();
  if (frame.width === 0) continue;  // a tab that isn't chosen
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  boxes.forEach(([a, p], i) => {
    if (p.left < frame.left - 1 || p.right > frame.right + 1 || p.top < frame.top - 1 || p.bottom > frame.bottom + 1)
      faults.push('outside: ' + a);
    for (const [b, q] of boxes.slice(i + 1))
      if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2)
        faults.push('overlap: ' + a + ' | ' + b);
  });
}
const unreadable = new Set();
for (const text of document.querySelectorAll('text.cell')) {
  const fill = getComputedStyle(text.parentNode.querySelector('rect')).fill;
  const colour = getComputedStyle(text).fill;
  if (contrast(fill, colour) < 4.0) unreadable.add(`${text.getAttribute('class')}: ${colour} on ${fill}`);
}
const surface = getComputedStyle(document.querySelector('section')).backgroundColor;
for (const text of document.querySelectorAll('h2, section p, td, th, text.tick, text.label')) {
  const style = getComputedStyle(text);
  const colour = text instanceof SVGElement ? style.fill : style.color;
  if (contrast(surface, colour) < 4.5) unreadable.add(`${text.tagName} ${text.getAttribute('class')}: ${colour}`);
}
faults.push(...unreadable);
if (document.querySelectorAll('#hatch').length !== 1 || document.querySelector('.panel #hatch, .tabs #hatch'))
  faults.push("what hatches the bars may be hidden");
if (document.documentElement.scrollWidth > innerWidth) faults.push('the page scrolls sideways');
document.body.setAttribute('data-faults', JSON.stringify(faults));
document.body.setAttribute('data-surface', surface);
</script>"""


@pytest.fixture(scope="module")
def everything() -> str:
    """A page with every section: an evaluation, two calibrations, several maps."""
    rows, bundle = make_evaluation()
    found = make_content(rows, bundle)
    shape = geometry()
    return render(
        Content(
            found.rows,
            {"before": bundle.calibration, "after": make_calibration(shape, 0.6)},
            {"2.5 bits": make_bit_map(shape, 2.5, 1), "6 bits": make_bit_map(shape, 6.0, 2)},
            found.curves,
        )
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 500)])
def test_every_text_can_be_read_and_nothing_is_cut_off(everything, tmp_path: Path, scheme: str, width: int):
    page = tmp_path / "page.html"
    page.write_text(everything.replace("</body>", PROBE + "</body>"))
    seen = browse(page, scheme=scheme, width=width)
    assert not seen.console
    faults = re.search(r'data-faults="([^"]*)"', seen.dom)
    assert faults is not None
    assert faults.group(1) == "[]"
    surface = re.search(r'data-surface="rgb\((\d+)', seen.dom)
    assert surface is not None
    assert (int(surface.group(1)) < 128) == (scheme == "dark")


@pytest.mark.parametrize("layers, heads", [(80, 8), (4, 1)])
def test_large_and_small_models_fit_too(tmp_path: Path, layers: int, heads: int):
    shape = geometry(layers, heads)
    content = Content(
        [],
        {"a": make_calibration(shape), "b": make_calibration(shape, 0.6)},
        {"x": make_bit_map(shape, 3, 1), "y": make_bit_map(shape, 4, 2)},
    )
    page = tmp_path / "page.html"
    page.write_text(render(content).replace("</body>", PROBE + "</body>"))
    faults = re.search(r'data-faults="([^"]*)"', browse(page).dom)
    assert faults is not None and faults.group(1) == "[]"


# Machado, Oliveira, Fernandes 2009, severity 1: linear RGB as the eye without
# one kind of cone has it.
VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


def lab(colour: str, vision: str) -> tuple[float, float, float]:
    """CIELAB of a #rrggbb colour as somebody sees it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    seen = [min(max(sum(f * c for f, c in zip(row, linear)), 0.0), 1.0) for row in VISION[vision]]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    xyz = [sum(f * c for f, c in zip(row, seen)) / w for row, w in zip(to_xyz, white)]
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def colours(scheme: str) -> dict[str, str]:
    """The style sheet's named colours; what dark doesn't say is as in light."""
    css = resources.files(report).joinpath("style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", css, re.S)[:2]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if scheme == "light" else light + dark))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_quantizers_can_be_told_apart_with_any_colour_vision(scheme: str, vision: str):
    named = colours(scheme)
    for names in (QUANTIZER_IDS, ("key", "value"), ("better", "worse")):
        for one, other in itertools.combinations(names, 2):
            distance = sum((a - b) ** 2 for a, b in zip(lab(named[one], vision), lab(named[other], vision))) ** 0.5
            assert distance > 15, f"{one} and {other} in {scheme}: {distance:.1f}"


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_scales_grow_steadily_lighter_or_darker_with_any_colour_vision(scheme: str, vision: str):
    named = colours(scheme)
    css = resources.files(report).joinpath("style.css").read_text(encoding="utf-8")
    sizes = [colour for _, colour in sorted(((int(n), c) for n, c in re.findall(r"\.v(\d+) \{ --q: (#\w{6})", css)))]
    widths = [named[f"w{width}"] for width in range(1, 9)]
    fewer = [named[f"dn{step}"] for step in (4, 3, 2, 1)] + [named["d0"]]
    more = [named[f"dp{step}"] for step in (4, 3, 2, 1)] + [named["d0"]]
    assert len(sizes) == 12
    for scale in (sizes, widths, fewer, more):
        lightness = [lab(colour, vision)[0] for colour in scale]
        steps = [after - before for before, after in itertools.pairwise(lightness)]
        assert all(step > 1 for step in steps) or all(step < -1 for step in steps), f"{scale} in {scheme}"


def test_a_quantizer_has_a_shape_of_its_own():
    html = render(make_content(*make_evaluation()))
    # Points of the legends lie in the middle of their picture.
    shapes = {class_: shape for shape, class_ in re.findall(r'd="M13.0,8.0([^"]+)" class="point (q-\w+)"', html)}
    assert {"q-any", *(f"q-{quantizer}" for quantizer in QUANTIZERS)} <= shapes.keys()
    assert len({shape for name, shape in shapes.items() if name != "q-uniform"}) == len(shapes.keys() - {"q-uniform"})
