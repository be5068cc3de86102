"""HTML and SVG as nested strings, every text and attribute escaped."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is HTML already."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """`<tag ...>children</tag>`. Children that aren't Markup are escaped; None
    is left out. In attribute names a trailing underscore is dropped and others
    become hyphens (`class_`, `stroke_width`); a None attribute is left out;
    floats are rounded to two decimals."""
    text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{text}>{join(*children)}</{tag}>")


def join(*children: object) -> Markup:
    """Children one after the other."""
    return Markup(
        "".join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children if child is not None)
    )


def svg(width: float, height: float, label: str, *children: object, scale: bool = True) -> Markup:
    """A picture with a description for screen readers. With `scale` it is as
    wide as its column, and can be scrolled where that is too narrow to read;
    without, `width` pixels."""
    picture = element(
        "svg",
        *children,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        width="100%" if scale else _value(width),
        height=None if scale else _value(height),
        role="img",
        aria_label=label,
    )
    return element("div", picture, class_="picture") if scale else picture


def tooltip(text: str) -> Markup:
    """What a browser shows when the pointer rests on the parent."""
    return element("title", text)


def table(header: list[object], rows: list[list[object]], left_columns: int = 1) -> Markup:
    """A table with right-aligned figures after the first `left_columns`. A row
    of one cell spans the table as a heading."""

    def cells(tag: str, row: list[object]) -> list[Markup]:
        if len(row) == 1 and len(header) > 1:
            return [element("th", row[0], colspan=len(header), class_="group", scope="rowgroup")]
        return [
            element(tag, cell, class_="text" if column < left_columns else "figure") for column, cell in enumerate(row)
        ]

    head = element("thead", element("tr", *cells("th", header)))
    body = element("tbody", *(element("tr", *cells("td", row)) for row in rows))
    return element("div", element("table", head, body), class_="scroll")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
