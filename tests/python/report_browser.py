"""Headless Chromium and a parser, for what a browser makes of a report."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

# What a window prefers, as Blink numbers it.
_SCHEMES = {"dark": 0, "light": 1}


@dataclasses.dataclass
class Seen:
    """What Chromium made of a page."""

    dom: str
    console: list[str]
    requests: list[str]


def browse(page: Path, screenshot: Path | None = None, scheme: str = "light", width: int = 1200) -> Seen:
    """Opens a page. Skips the test where there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium; deploy/local/setup --tests installs it")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={width},3600", f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}",
            f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", f"--log-net-log={profile}/net.json",
        ]  # fmt: skip
        action = f"--screenshot={screenshot}" if screenshot else "--dump-dom"
        process = subprocess.run([*command, action, page.as_uri()], capture_output=True, text=True, timeout=180)
        assert process.returncode == 0, process.stderr
        console = [line for line in process.stderr.splitlines() if ":CONSOLE" in line]
        return Seen(process.stdout, console, _page_requests(Path(profile, "net.json").read_text()))


def _page_requests(net_log: str) -> list[str]:
    """http(s) addresses in a Chromium network log that the page asked for; the
    browser's own services are on its vendor's hosts."""
    addresses = re.findall(r'"url":"(https?://[^"]+)"', net_log)
    return [address for address in addresses if not re.match(r"https?://[^/]*(google|gvt1|gstatic)[^/]*/", address)]


class Found(HTMLParser):
    """What lies in each section of a page, by the section's id.

    Attributes:
      counts: by (section, tag) and (section, "tag.class").
      titles: tooltips, by section.
      cells: texts of table cells, by section, row by row.
    """

    def __init__(self, html: str):
        super().__init__()
        self.section = ""
        self.counts: dict[tuple[str, str], int] = {}
        self.titles: dict[str, list[str]] = {}
        self.cells: dict[str, list[list[str]]] = {}
        self._tag = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("section", "header"):
            self.section = attributes.get("id") or ""
        for name in (tag, *(f"{tag}.{c}" for c in (attributes.get("class") or "").split())):
            self.counts[self.section, name] = self.counts.get((self.section, name), 0) + 1
        if tag == "tr":
            self.cells.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.cells[self.section][-1].append("")
        self._tag = tag

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._tag == "title":
            self.titles.setdefault(self.section, []).append(data)
        if self._tag in ("td", "th"):
            self.cells[self.section][-1][-1] += data

    def row(self, section: str, first: str) -> list[str]:
        """The table row that starts with a text."""
        return next(row for row in self.cells[section] if row and row[0] == first)
