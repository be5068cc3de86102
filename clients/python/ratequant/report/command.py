"""`python -m ratequant report`."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratequant.report.content import Content

_DESCRIPTION = """\
Draws one self-contained HTML page from JSON files; it needs no service and no
network. A file may be
  rows of an evaluation         python -m ratequant evaluate --json
  what is behind those          python -m ratequant evaluate --bundle
  calibrations, at most two     ratequant calibrations get --json
  bit maps, at most six         ratequant bitmap get --json
  rate-distortion curves        ratequant curve --json; named by the file, so
                                that kivi.json is kivi's curve
  recorded evaluations of them  ratequant evaluations list --json
Two calibrations are compared, and every map with the first. A map's layers show
what they are predicted to cost where its calibration is there too."""

_EXAMPLES = """\
examples:
  # an evaluation and what is behind it
  python -m ratequant report rows.json bundle.json --out report.html

  # does today's calibration say the same as last month's?
  ratequant calibrations get --model Qwen3-0.6B --json > today.json
  python -m ratequant report last-month.json today.json map.json --out drift.html

  # two maps of one calibration
  python -m ratequant report calibration.json 3-bits.json 4-bits.json --out maps.html

  # the rows alone; what is behind them from the allocator they were made with
  python -m ratequant report --json rows.json --endpoint 127.0.0.1:50061 --out report.html"""


def add_command(commands) -> None:
    """Adds the verb to an argparse sub-command list."""
    parser = commands.add_parser(
        "report",
        help="one HTML page about evaluations, calibrations and bit maps",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("files", nargs="*", metavar="FILE", help="JSON of any kind above, told apart by what is in it")
    parser.add_argument("--json", metavar="FILE", help="rows that `evaluate --json` wrote")
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    behind = parser.add_mutually_exclusive_group()
    behind.add_argument("--bundle", metavar="FILE", help="what `evaluate --bundle` wrote")
    behind.add_argument("--endpoint", metavar="HOST:PORT", help="the allocator the rows were made with")


def _run(arguments: argparse.Namespace) -> int:
    from ratequant.report.page import render

    content = _content(arguments)
    out = pathlib.Path(arguments.out)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(render(content), encoding="utf-8")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    print(out)
    return 0


def _content(arguments: argparse.Namespace) -> Content:
    from ratequant.client import Client
    from ratequant.evaluate.bundle import Bundle
    from ratequant.report.files import FileSet
    from ratequant.report.source import fetch_bundle, read_rows

    if arguments.endpoint and not arguments.json:
        raise ValueError("--endpoint fetches what is behind the rows of --json, which isn't given")
    files = FileSet()
    if arguments.json:
        rows = read_rows(arguments.json)
        files.add_rows(rows)
        if arguments.endpoint:
            with Client(arguments.endpoint) as client:
                files.add_bundle(fetch_bundle(client, rows), "calibration")
    if arguments.bundle:
        files.add_bundle(Bundle.read(arguments.bundle), "calibration")
    for file in arguments.files:
        files.add_file(file)
    return files.content()
