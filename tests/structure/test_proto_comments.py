"""Every element of the API says what it is."""

import pathlib
import re

import pytest

PROTOS = sorted((pathlib.Path(__file__).resolve().parents[2] / "proto").rglob("*.proto"))
ELEMENT = re.compile(r"^\s*(message|enum|service|rpc|oneof|optional|repeated|[\w.]+)\s+\w+.*[;{]\s*$|^\s*[A-Z][A-Z0-9_]* = \d+;")
NOT_ELEMENT = re.compile(r"^\s*(syntax|package|import|option|returns)\b|^\s*\}")


@pytest.mark.parametrize("path", PROTOS, ids=lambda p: p.name)
def test_every_element_is_commented(path: pathlib.Path) -> None:
    lines = path.read_text().splitlines()
    bare = []
    for number, line in enumerate(lines):
        if not ELEMENT.match(line) or NOT_ELEMENT.match(line):
            continue
        if not lines[number - 1].strip().startswith("//"):
            bare.append(f"{path.name}:{number + 1}: {line.strip()}")
    assert not bare, "\n".join(bare)
