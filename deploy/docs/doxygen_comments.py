"""Doxygen's input filter: our comments as it wants them marked.

    doxygen_comments.py HEADER

A comment above a declaration becomes ///, one behind it ///<, together with the
lines it goes on in, and a C comment /**. Line numbers stay. What follows the
last line has doxygen look at functions and macros of files and namespaces too.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_ALONE = re.compile(r"^(\s*)//(?!/)(.*)$")
_BEHIND = re.compile(r"^(\s*[^\s/].*?)(\s)//(?!/)(.*)$")
_NAMESPACE = re.compile(r"^namespace ([\w:]+) \{", re.MULTILINE)
_HEADING = re.compile(r"^\s*// -+ .* -+$")


def marked(text: str) -> str:
    """A header's text with its comments marked."""
    lines, column = [], None
    for line in text.splitlines():
        alone, behind = _ALONE.match(line), _BEHIND.match(line)
        if _HEADING.match(line):
            lines.append("")
            column = None
        elif alone:
            goes_on = column == len(alone[1])
            lines.append(f"{alone[1]}///{'<' if goes_on else ''}{alone[2]}")
            column = column if goes_on else None
        elif behind and '"' not in behind[1]:
            lines.append(f"{behind[1]}{behind[2]}///<{behind[3]}")
            column = len(behind[1]) + len(behind[2])
        else:
            line = re.sub(r"^(\s*)/\*(?!\*)", r"\1/**", line)
            lines.append(re.sub(r"([;,]\s+)/\*(?!\*)", r"\1/**<", line))
            column = None
    found = dict.fromkeys(_NAMESPACE.findall(text))
    return "\n".join([*lines, "/** @file */", *(f"/** @namespace {name} */" for name in found)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(marked(Path(sys.argv[1]).read_text(encoding="utf-8")))
