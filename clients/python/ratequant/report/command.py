"""`python -m ratequant report`."""

from __future__ import annotations

import argparse
import os
import pathlib

_DESCRIPTION = """\
Draws an evaluation as one self-contained HTML page: bit maps, perplexities,
rate-distortion curve and fitted distortion curves. What is behind the rows comes
from the bundle evaluate wrote, or from the allocator they were made with; with
neither, the page shows the perplexities alone."""

_EXAMPLES = """\
examples:
  python -m ratequant report --json rows.json --bundle bundle.json --out report.html
  python -m ratequant report --json rows.json --endpoint 127.0.0.1:50061 --out report.html"""


def add_command(commands) -> None:
    """Adds the verb to an argparse sub-command list."""
    parser = commands.add_parser(
        "report",
        help="one HTML page about an evaluation",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--json", required=True, metavar="FILE", help="rows that `evaluate --json` wrote")
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    behind = parser.add_mutually_exclusive_group()
    behind.add_argument("--bundle", metavar="FILE", help="what `evaluate --bundle` wrote")
    behind.add_argument("--endpoint", metavar="HOST:PORT", help="the allocator the rows were made with")


def _run(arguments: argparse.Namespace) -> int:
    from ratequant.client import Client
    from ratequant.evaluate.bundle import Bundle
    from ratequant.report.page import render
    from ratequant.report.source import fetch_bundle, read_rows

    rows = read_rows(arguments.json)
    bundle = None
    if arguments.bundle:
        bundle = Bundle.read(arguments.bundle)
    elif arguments.endpoint:
        with Client(arguments.endpoint) as client:
            bundle = fetch_bundle(client, rows)
    out = pathlib.Path(arguments.out)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(render(rows, bundle), encoding="utf-8")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    print(out)
    return 0
