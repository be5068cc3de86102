"""Colours by quantizer, the same in every figure of a page."""

from __future__ import annotations

from collections.abc import Iterable

from ratequant.report.markup import Markup, element

# CSS classes; the page's style sheet gives each a colour for light and dark.
_FAMILY_CLASS = {"rtn": "q-rtn", "kivi": "q-kivi", "quarot": "q-quarot", "turboquant": "q-turboquant", "any": "q-any"}
_FURTHER_CLASSES = ("q-a", "q-b", "q-c", "q-d")


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


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """(label, CSS class) pairs with a swatch each."""
    return element(
        "ul",
        *(element("li", element("span", class_=f"swatch {class_}"), label) for label, class_ in entries),
        class_="legend",
    )
