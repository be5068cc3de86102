"""Pages of our own: the first one, and what is written in Markdown."""

from __future__ import annotations

from pathlib import Path

import markdown2

from ratequant.report.markup import Markup, element, join

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; max-width: 960px; margin: 0 auto; padding: 24px 20px 80px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
td, th { border-bottom: 1px solid #8884; padding: 4px 12px 4px 0; vertical-align: top; text-align: left; }
td p { margin: 0 0 6px; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13.5px; }
pre { background: #8881; padding: 12px; border-radius: 8px; overflow-x: auto; }
h2 { border-top: 1px solid #8886; padding-top: 18px; margin-top: 40px; }
h3 { margin-top: 28px; } h4 { margin-bottom: 4px; }
"""
_WALKTHROUGH = "clients/python/examples/walkthrough.md"
_PARTS = (
    ("walkthrough.html", "Walkthrough", "from a model to text generated from a cache of 3 bits, in Python"),
    ("python/index.html", "Python", "the package `ratequant`"),
    ("cpp/index.html", "C and C++", "the runtime `libratequant_kv` and the client `ratequant::client`"),
    ("services/index.html", "Services", "the gRPC API of allocator and worker"),
)


def write(root: Path, out: Path) -> None:
    """Writes the first page and the walkthrough."""
    text = (root / _WALKTHROUGH).read_text(encoding="utf-8")
    (out / "walkthrough.html").write_text(page("RateQuant: walkthrough", markdown(text), up=""), encoding="utf-8")
    items = [element("li", element("a", title, href=href), f": {about.replace('`', '')}") for href, title, about in _PARTS]
    body = join(element("h1", "RateQuant"), element("ul", *items))
    (out / "index.html").write_text(page("RateQuant", body), encoding="utf-8")


def page(title: str, body: Markup, up: str | None = None) -> str:
    """A whole page; `up` is the way to the first one, for a link back."""
    back = None if up is None else element("p", element("a", "RateQuant documentation", href=f"{up}index.html"))
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', back, body), lang='en')}\n"


def markdown(text: str) -> Markup:
    """Markdown as HTML; HTML within it, and names with_underscores, are shown as
    they are written."""
    extras = ["code-friendly", "fenced-code-blocks", "header-ids", "tables"]
    return Markup(markdown2.markdown(text, safe_mode="escape", extras=extras))
