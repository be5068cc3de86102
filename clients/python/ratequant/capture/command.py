"""`python -m ratequant capture`."""

from __future__ import annotations

import argparse
import dataclasses
import json
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
    capture = commands.add_parser("capture", help="records K, V and Q of a model in a file, and calibrates from it")
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
    add("--gradients", action="store_true", help="also run backward and record the gradients of K, V and attention's output")
    add("--model-name", default="", metavar="ID", help="id that goes into the file (default: the folder's name)")
    _add_inspect(verbs)
    _add_calibrate(verbs)


def _add_inspect(verbs) -> None:
    parser = verbs.add_parser("inspect", help="checks a capture and says what is in it")
    parser.set_defaults(run=_inspect)
    parser.add_argument("capture", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _add_calibrate(verbs) -> None:
    parser = verbs.add_parser(
        "calibrate",
        help="calibrates from a capture with gradients, on a worker that needn't have the model",
        epilog="example:\n  python -m ratequant capture calibrate capture.safetensors --worker 127.0.0.1:50062",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_calibrate)
    add = parser.add_argument
    add("capture", type=Path, metavar="FILE", help="recorded with --gradients")
    add("--worker", default=None, metavar="HOST:PORT", help="default: $RATEQUANT_WORKER_ENDPOINT")
    add("--model", default="", metavar="ID", help="what to store it under (default: the capture's model)")
    add("--quantizer", nargs="+", default=[], metavar="NAME", help="quantizers to measure (default: all that fit)")
    add("--sinks", type=int, default=4, metavar="TOKENS", help="first tokens kept in fp16 (default %(default)s)")
    add("--page-tokens", type=int, default=32, metavar="TOKENS", help="tokens of a page (default %(default)s)")
    add("--subtract-means", action="store_true", help="take each channel's mean off K and V, as `ratequant calibrate` does")
    add("--attention-output", action="store_true", help="also measure what --objective attention-output needs")


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


def _inspect(arguments: argparse.Namespace) -> int:
    from ratequant.capture.capture_reader import CaptureReader

    with CaptureReader(arguments.capture) as capture:
        described = dataclasses.asdict(capture.info)
    if arguments.json:
        print(json.dumps(described))
        return 0
    for name, value in described.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        print(f"{name.replace('_', ' '):16} {'yes' if shown is True else 'no' if shown is False else shown}")
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    from ratequant.capture.calibrate import calibrate_capture
    from ratequant.capture.capture_reader import CaptureReader
    from ratequant.client import Client

    last = None
    with CaptureReader(arguments.capture) as capture, Client(worker_endpoint=arguments.worker) as client:
        for progress in calibrate_capture(
            client,
            capture,
            model=arguments.model,
            quantizers=arguments.quantizer,
            sink_tokens=arguments.sinks,
            page_tokens=arguments.page_tokens,
            subtract_means=arguments.subtract_means,
            attention_output=arguments.attention_output,
        ):
            if last is None or progress.phase != last.phase:
                print(progress.phase.lower(), file=sys.stderr)
            last = progress
    for warning in last.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not last.published:
        print("not published yet: the worker keeps it until the allocator can be reached", file=sys.stderr)
    print(last.calibration)
    return 0
