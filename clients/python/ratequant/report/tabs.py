"""Panels of which one is shown, without a script."""

from __future__ import annotations

from collections.abc import Sequence

from ratequant.report.markup import Markup, element


def tabs(name: str, panels: Sequence[tuple[str, Markup]], selected: int = 0) -> Markup:
    """(label, panel) pairs behind radio buttons; a single panel needs none.
    `name` is unique on the page."""
    if len(panels) == 1:
        return panels[0][1]
    parts = []
    for index, (label, panel) in enumerate(panels):
        identifier = f"{name}-{index}"
        checked = "checked" if index == selected else None
        parts.append(element("input", type="radio", name=name, id=identifier, checked=checked))
        parts.append(element("label", label, for_=identifier))
        parts.append(element("div", panel, class_="panel"))
    return element("div", *parts, class_="tabs")
