"""Colours by quantizer, the same in every figure of a page.

The style sheet takes them from palettes that people with any colour vision can
tell apart: Okabe and Ito's for kinds, viridis for sizes, ColorBrewer's PuOr for
differences. Shapes, dashes and figures say the same once more.
"""

from __future__ import annotations

from collections.abc import Iterable

from ratequant.quantizer import QUANTIZER_IDS
from ratequant.report.markup import Markup, element

# CSS classes; the page's style sheet gives each a colour for light and dark.
_FAMILY_CLASS = {name: f"q-{name}" for name in (*QUANTIZER_IDS, "any")}
_FURTHER_CLASSES = ("q-a", "q-b", "q-c", "q-d")
# Steps of the style sheet's colour scales.
SIZE_STEPS = 12
DIFFERENCE_STEPS = 4


def quantizer_classes(names: Iterable[str]) -> dict[str, str]:
    """A CSS class for each quantizer. A family's first variant has the
    family's colour; further variants take the spare colours in turn."""
    classes: dict[str, str] = {}
    for name in names:
        if name in classes:
            continue
        family = _FAMILY_CLASS.get(name.partition(":")[0])
        if family is None or family in classes.values():
            family = next((c for c in _FURTHER_CLASSES if c not in classes.values()), _FURTHER_CLASSES[-1])
        classes[name] = family
    return classes


def size_class(part: float) -> str:
    """The colour of a size, 0 the smallest and 1 the largest on the scale."""
    return f"v{min(max(int(part * SIZE_STEPS), 0), SIZE_STEPS - 1)}"


def difference_class(steps: float) -> str:
    """The colour of a difference, in steps of the scale either way."""
    whole = min(max(round(steps), -DIFFERENCE_STEPS), DIFFERENCE_STEPS)
    return "d0" if whole == 0 else f"d{'n' if whole < 0 else 'p'}{abs(whole)}"


def size_scale(low: str, high: str) -> Markup:
    """The whole colour scale of sizes between two labels."""
    return _scale(low, [f"v{step}" for step in range(SIZE_STEPS)], high)


def difference_scale(low: str, high: str) -> Markup:
    """The whole colour scale of differences between two labels."""
    steps = range(-DIFFERENCE_STEPS, DIFFERENCE_STEPS + 1)
    return _scale(low, [difference_class(step) for step in steps], high)


def _scale(low: str, classes: list[str], high: str) -> Markup:
    steps = [element("span", class_=f"fill {class_}") for class_ in classes]
    return element("p", low, element("span", *steps, class_="steps"), high, class_="scale")


def stripe_swatch(class_: str) -> Markup:
    """A legend's piece of the stripe that marks a quantizer in a map."""
    stripe = element("path", d="M0,6h26", class_=f"stripe {class_}")
    return element("svg", stripe, width=26, height=12, class_="mark", aria_hidden="true")


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """(label, swatch) pairs; a swatch is Markup or the CSS class of a plain one."""
    items = []
    for label, swatch in entries:
        picture = swatch if isinstance(swatch, Markup) else element("span", class_=f"swatch {swatch}")
        items.append(element("li", picture, label))
    return element("ul", *items, class_="legend")
