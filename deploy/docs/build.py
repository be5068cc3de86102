"""Writes all of the documentation; see `build`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import cpp_api
import links
import pages
import proto_api
import python_api

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Exit status: 0, or 1 with a line for each fault."""
    parser = argparse.ArgumentParser(prog="deploy/docs/build", description="Writes the documentation.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", metavar="DIR", help="default %(default)s")
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    faults = [
        *python_api.write(out / "python"),
        *cpp_api.write(ROOT, out / "cpp"),
        *proto_api.write(ROOT, out / "services"),
    ]
    pages.write(ROOT, out)
    faults += links.broken_in_pages(out)
    faults += links.broken_in_markdown(ROOT)
    for fault in faults:
        print(f"docs: {fault}", file=sys.stderr)
    if faults:
        return 1
    print(out / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
