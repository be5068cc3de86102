"""`python -m ratequant check`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from ratequant.check.drift import Drift
from ratequant.client import ENDPOINT_VARIABLE, Client

_DESCRIPTION = """\
Captures some new text and tells whether the stored calibration still fits it: makes
bit maps from one half of the new text, and compares what they lose on the other half
with what the stored calibration's map loses there.

Exit status: 0 it fits, 3 it doesn't, 1 the check failed, 2 a bad flag."""

_EXAMPLES = """\
example:
  python -m ratequant check --endpoint 127.0.0.1:50061 --model /models/Qwen3-0.6B --text today.txt"""

FITS, DOES_NOT_FIT = 0, 3


def add_command(commands) -> None:
    """Adds the verb to an argparse sub-command list."""
    parser = commands.add_parser(
        "check",
        help="whether a stored calibration still fits new text",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("--model", required=True, type=Path, metavar="DIR", help="folder of the calibrated model")
    add("--text", required=True, type=Path, metavar="FILE", help="UTF-8 text such as the model gets now")
    add("--endpoint", default=os.environ.get(ENDPOINT_VARIABLE, ""), metavar="HOST:PORT",
        help=f"the allocator that has the calibration (default ${ENDPOINT_VARIABLE})")  # fmt: skip
    add("--model-name", default="", metavar="ID", help="id the calibration is stored under (default: the folder's name)")
    add("--calibration", default="latest", metavar="ID", help="default %(default)s")
    add("--effective-bits", type=float, default=3.0, metavar="B", help="budget of the compared maps (default %(default)s)")
    add("--sequences", type=int, default=8, metavar="N", help="new sequences to capture (default %(default)s)")
    add("--sequence-length", type=int, default=512, metavar="N", help="tokens of each (default %(default)s)")
    add("--tolerance", type=float, default=0.1, metavar="X",
        help="it fits while the stored map loses at most this much more, as a part of the new maps' loss (default %(default)s)")  # fmt: skip
    add("--json", action="store_true", help="the result as one JSON object")


def _run(arguments: argparse.Namespace) -> int:
    from ratequant.check.run import CheckOptions, check
    from ratequant.text import read_text

    if not arguments.endpoint:
        raise ValueError(f"no allocator: pass --endpoint or set {ENDPOINT_VARIABLE}")
    options = CheckOptions(
        model=arguments.model,
        text=read_text(arguments.text),
        model_name=arguments.model_name or arguments.model.resolve().name,
        calibration=arguments.calibration,
        effective_bits=arguments.effective_bits,
        sequences=arguments.sequences,
        sequence_length=arguments.sequence_length,
    )
    with Client(arguments.endpoint) as client:
        drift = check(client, options, lambda phase: print(phase, file=sys.stderr))
    fits = drift.excess <= arguments.tolerance
    print(json.dumps({"fits": fits, **dataclasses.asdict(drift)}) if arguments.json else _text(drift, fits))
    return FITS if fits else DOES_NOT_FIT


def _text(drift: Drift, fits: bool) -> str:
    lines = [
        "fits" if fits else "does not fit: calibrate again",
        f"rank correlation of groups   {drift.rank_correlation:.3f}",
        f"stored map, predicted loss   {drift.stored_loss:.4g} nats per token on the new text",
        f"map for the new text         {drift.new_loss:.4g}, {drift.excess:+.1%} lost by keeping the stored one",
        "most changed                 "
        + ", ".join(f"layer {g.layer} head {g.head} {g.tensor} x{g.ratio:.2g}" for g in drift.groups[:5]),
    ]
    return "\n".join(lines)
