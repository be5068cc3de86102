"""Links that lead nowhere."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


class _Page(HTMLParser):
    """Where a page's links go, and what in it can be linked to."""

    def __init__(self, path: Path):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8", errors="replace"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.targets.append(value)
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


def broken_in_pages(folder: Path) -> Iterator[str]:
    """Links of the HTML below a folder to files or anchors that aren't there.
    Those to other hosts aren't followed."""
    load = cache(_Page)
    for path in sorted(folder.rglob("*.html")):
        for target in dict.fromkeys(load(path).targets):
            if fault := _fault(path, target, lambda file: load(file).anchors if file.suffix == ".html" else None):
                yield f"{path.relative_to(folder)} links to '{target}': {fault}"


def broken_in_markdown(root: Path) -> Iterator[str]:
    """The same of the repository's Markdown files."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=root, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        text = _CODE.sub("", (root / name).read_text(encoding="utf-8"))
        for target in dict.fromkeys(_MARKDOWN_LINK.findall(text)):
            if fault := _fault(root / name, target, _headings):
                yield f"{name} links to '{target}': {fault}"


def _fault(path: Path, target: str, anchors_of) -> str:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    file = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    if not file.exists():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and file.is_file():
        anchors = anchors_of(file)
        if anchors is not None and anchor not in anchors:
            return "no such place in it"
    return ""


def _headings(path: Path) -> set[str] | None:
    """Anchors that a Markdown file's headings get where it is shown."""
    if path.suffix != ".md":
        return None
    headings = _HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
