"""The reference of the C and C++ headers, by doxygen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

# Methods of it are one for each RPC, which the services' reference documents.
_RPC_CLASSES = ("Connection", "GrpcConnection")
_UNDOCUMENTED = re.compile(r"Member (?P<member>.*) \((?P<kind>[\w ]+)\) of (?P<scope>\w+) (?P<owner>\S+) is not documented")


def write(root: Path, out: Path) -> list[str]:
    """Writes HTML into `out` and returns doxygen's complaints."""
    if shutil.which("doxygen") is None:
        return ["no doxygen; deploy/local/setup --tests installs it"]
    settings = _settings(root, out)
    process = subprocess.run(
        ["doxygen", "-"], input=settings, cwd=root, capture_output=True, text=True, check=False, timeout=300
    )
    if process.returncode != 0:
        return [f"doxygen failed: {process.stderr.strip()}"]
    return [line for line in process.stderr.splitlines() if "warning:" in line and not _is_plain(line)]


def _is_plain(warning: str) -> bool:
    """Whether what has no comment needs none: fields, which their struct tells
    of, numbers below the comment that heads their list, constructors, operators,
    overrides, and RPCs."""
    found = _UNDOCUMENTED.search(warning)
    if found is None:
        return False
    member, owner = found["member"], found["owner"].rpartition("::")[2]
    if found["kind"] == "variable":
        return found["scope"] in ("struct", "class")
    if found["kind"] == "macro definition":
        return True
    return " override" in member or member.startswith(("operator", f"{owner}(")) or owner in _RPC_CLASSES


def _settings(root: Path, out: Path) -> str:
    readme = root / "README.md"
    title = readme.read_text(encoding="utf-8").splitlines()[2]
    comments = f"{sys.executable} {Path(__file__).with_name('doxygen_comments.py')}"
    settings = {
        "PROJECT_NAME": '"RateQuant"',
        "PROJECT_BRIEF": f'"{title}"',
        "INPUT": "kernels/include clients/cpp",
        "RECURSIVE": "YES",
        "FILE_PATTERNS": "*.h",
        "EXCLUDE": "clients/cpp/examples clients/cpp/mocks",
        "INPUT_FILTER": f'"{comments}"',
        "STRIP_FROM_PATH": "kernels/include .",
        "STRIP_FROM_INC_PATH": "kernels/include .",
        "JAVADOC_AUTOBRIEF": "YES",
        "HTML_OUTPUT": f'"{out}"',
        "GENERATE_LATEX": "NO",
        "QUIET": "YES",
        "WARN_NO_PARAMDOC": "NO",
        "WARN_IF_INCOMPLETE_DOC": "NO",
        "MACRO_EXPANSION": "YES",
        "EXPAND_ONLY_PREDEF": "YES",
        "PREDEFINED": '"ABSL_LOCKS_EXCLUDED(x)=" "ABSL_GUARDED_BY(x)=" "RQ_KV_EXPORT="',
        "HAVE_DOT": "NO",
        "SHOW_INCLUDE_FILES": "NO",
        "VERBATIM_HEADERS": "NO",
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())
