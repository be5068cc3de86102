"""The documentation can be made, is whole, and says so when it isn't."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "docs"))

import cpp_api  # noqa: E402
import links  # noqa: E402
import proto_api  # noqa: E402
import python_api  # noqa: E402
from doxygen_comments import marked  # noqa: E402


def test_the_command_writes_everything_without_a_fault(tmp_path: Path):
    made = subprocess.run(
        [ROOT / "deploy/docs/build", "--out", tmp_path / "docs"], capture_output=True, text=True, check=False, timeout=300
    )
    assert made.returncode == 0, made.stderr
    docs = tmp_path / "docs"
    # One thing a reader would look up in each part.
    assert 'id="RateQuantCache.reorder_cache"' in (docs / "python/ratequant/cache.html").read_text()
    assert "get_bit_map" in (docs / "python/ratequant.html").read_text()
    services = (docs / "services/index.html").read_text()
    assert 'id="ratequant.v1.AllocationService.WatchBitMap"' in services
    assert 'href="#ratequant.v1.GetBitMapRequest"' in services
    assert "FAILED_PRECONDITION (BACKUPS_DISABLED" in services
    cache = (docs / "cpp/classratequant_1_1kv_1_1KvCache.html").read_text()
    assert "#include &lt;ratequant/kv/kv_cache.h&gt;" in cache
    assert "RESOURCE_EXHAUSTED when memory can't be reserved" in cache
    assert "RQ_KV_INVALID_ARGUMENT" in (docs / "cpp/c__api_8h.html").read_text()
    assert "<h1" in (docs / "walkthrough.html").read_text()


def test_what_has_no_docstring_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "documented_sample.py").write_text(
        '"""A module."""\n\n\ndef told():\n    """Told."""\n\n\ndef silent():\n    pass\n\n\ndef _private():\n    pass\n\n\n'
        'class Kind:\n    """Told."""\n\n    def method(self):\n        pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = python_api.pdoc.doc.Module.from_name("documented_sample")
    assert list(python_api.silent(module)) == [
        "function documented_sample.silent has no docstring",
        "function documented_sample.Kind.method has no docstring",
    ]


@pytest.mark.skipif(shutil.which("doxygen") is None, reason="no doxygen; deploy/local/setup --tests installs it")
def test_a_header_without_comments_is_named(tmp_path: Path):
    (tmp_path / "README.md").write_text("# Sample\n\nA sample.\n")
    header = tmp_path / "kernels/include/sample.h"
    header.parent.mkdir(parents=True)
    (tmp_path / "clients/cpp").mkdir(parents=True)
    header.write_text(
        "namespace sample {\n// Told.\nstruct Told {\n  int field = 0;  // a field that is told\n};\n"
        "struct Silent {\n  int x = 0;\n};\n// Told.\nint Told2();\nint SilentFunction();\n}  // namespace sample\n"
    )
    faults = cpp_api.write(tmp_path, tmp_path / "out")
    assert len(faults) == 2, faults
    assert "sample::Silent " in faults[0] and "SilentFunction" in faults[1]


def test_an_api_element_without_a_comment_is_named(tmp_path: Path):
    package = tmp_path / "proto/ratequant/v1"
    package.mkdir(parents=True)
    (package / "sample.proto").write_text(
        'syntax = "proto3";\npackage ratequant.v1;\n// Told.\nmessage Told {\n  // Told.\n  string told = 1;\n  Told silent = 2;\n}\n'
    )
    assert proto_api.write(tmp_path, tmp_path / "out") == ["ratequant/v1/sample.proto: ratequant.v1.Told.silent has no comment"]
    page = (tmp_path / "out/index.html").read_text()
    assert 'href="#ratequant.v1.Told"' in page and 'id="ratequant.v1.Told"' in page


def test_links_that_lead_nowhere_are_named(tmp_path: Path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there">x</a><a href="#here">y</a><a href="https://example.org">z</a>')
    (tmp_path / "b.html").write_text('<a href="none.html">x</a><a href="a.html#gone">y</a>')
    assert list(links.broken_in_pages(tmp_path)) == [
        "a.html links to 'b.html#there': no such place in it",
        "b.html links to 'none.html': no such file",
        "b.html links to 'a.html#gone': no such place in it",
    ]


def test_links_of_markdown_files_are_followed(tmp_path: Path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "a.md").write_text("# The title, here\n[x](#the-title-here) [y](#gone) [z](b.md#two) [n](none.md) `[c](code.md)`\n")
    (tmp_path / "b.md").write_text("## Two\n")
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    assert list(links.broken_in_markdown(tmp_path)) == [
        "a.md links to '#gone': no such place in it",
        "a.md links to 'none.md': no such file",
    ]


def test_comments_are_marked_for_doxygen_and_lines_stay():
    text = "// --- Part ---\n// Above.\nint a = 1;  // behind,\n            // and on\n// Above b.\nint b;\n/* C. */\nint c;\n"
    lines = ["", "/// Above.", "int a = 1;  ///< behind,", "            ///< and on", "/// Above b.", "int b;", "/** C. */", "int c;"]
    assert marked(text).splitlines()[:8] == lines
