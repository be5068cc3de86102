"""`python -m ratequant capture`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

_DESCRIPTION = """\
Runs a language model over the beginning of a text and records what its attention
reads, K, V and Q of every layer, in one safetensors file, for machines that don't
have the model: `ratequant replay` tries bit maps on it."""

_EXAMPLES = """\
examples:
  python -m ratequant capture record --model build/models/SmolLM2-135M-Instruct \\
      --text held-out.txt --out smollm2.safetensors
  ratequant replay --capture smollm2.safetensors --map map.json --uniform kivi:4"""


def add_command(commands) -> None:
    """Adds the verb to an argparse sub-command list."""
    capture = commands.add_parser("capture", help="records K, V and Q of a model in a file")
    verbs = capture.add_subparsers(metavar="VERB", required=True)
    parser = verbs.add_parser(
        "record",
        help="runs a model over a text and records it",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_record)
    add = parser.add_argument
    add("--model", required=True, type=Path, metavar="DIR", help="folder of a Hugging Face causal language model")
    add("--text", required=True, type=Path, metavar="FILE", help="UTF-8 text; its beginning is used")
    add("--out", required=True, type=Path, metavar="FILE", help="the file to write; an old one is replaced when the new one is whole")
    add("--sequences", type=int, default=2, metavar="N", help="default %(default)s")
    add("--sequence-length", type=int, default=512, metavar="N", help="tokens of a sequence (default %(default)s)")
    add("--gradients", action="store_true", help="also run backward and record the gradients of K and V")
    add("--model-name", default="", metavar="ID", help="id that goes into the file (default: the folder's name)")


def _record(arguments: argparse.Namespace) -> int:
    # Imported late: torch takes seconds, and --help shouldn't.
    from ratequant.capture.record import RecordOptions, record

    options = RecordOptions(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(RecordOptions)})
    record(
        options,
        lambda sequence: print(f"sequence {sequence + 1} of {options.sequences}", file=sys.stderr),
    )
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0
