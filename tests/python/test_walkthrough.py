"""The walkthrough runs as it is written, and says what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

WALKTHROUGH = Path("clients/python/examples/walkthrough.md")
_FENCE = re.compile(r"^```.*$", re.MULTILINE)


def test_every_line_runs_and_prints_what_the_page_shows(root: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch):
    """`smollm2` only skips where the model isn't there."""
    monkeypatch.chdir(root)
    text = _FENCE.sub("", (root / WALKTHROUGH).read_text(encoding="utf-8"))
    session: dict = {}
    page = doctest.DocTestParser().get_doctest(text, session, "walkthrough", str(WALKTHROUGH), 0)
    assert len(page.examples) > 40
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST | doctest.NORMALIZE_WHITESPACE)
    try:
        failed, tried = runner.run(page, out=report.append, clear_globs=False)
    finally:
        if "stack" in session:
            session["stack"].close()
    assert not failed, "".join(report)
    assert tried == len(page.examples)
