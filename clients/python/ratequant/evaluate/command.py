"""`python -m ratequant evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import os

from ratequant.client import ENDPOINT_VARIABLE, WORKER_ENDPOINT_VARIABLE
from ratequant.evaluate.options import BASELINE, DEFAULT_STRATEGIES, STRATEGIES, EvaluateOptions
from ratequant.quantizer import QUANTIZER_IDS, split_quantizers

_DESCRIPTION = """\
Measures the perplexity of a language model whose KV cache lives in packed bytes:
for every quantizer, budget and strategy, beside fp32 and uniform bits.

Calibrates the model first, unless the allocator has a calibration of the same
tokens, and starts the allocator and the worker itself when no --endpoint is given.
The text runs through the cache in chunks of 32 tokens; every token older than the
window is read back dequantized, as in a server."""

_EXAMPLES = """\
examples:
  # kivi and turboquant at 2.5 code bits, everything at 3 effective bits
  python -m ratequant evaluate --model build/models/SmolLM2-135M-Instruct \\
      --calibrate-text calibration.txt --eval-text held-out.txt --tokens 3000 \\
      --quantizers kivi turboquant --code-bits 2.5 --effective-bits 3.0 --json rows.json

  # without sinks and window, against services that run already
  python -m ratequant evaluate --endpoint 127.0.0.1:50061 --worker-endpoint 127.0.0.1:50062 \\
      --model models/Qwen3-0.6B --calibrate-text a.txt --eval-text b.txt --tokens 3000 \\
      --code-bits 2 3 4 --sinks 0 --window 0 --json rows.json"""


def add_command(commands) -> None:
    """Adds the verb to an argparse sub-command list."""
    parser = commands.add_parser(
        "evaluate",
        help="perplexity of quantized caches on held-out text",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    defaults = {field.name: field.default for field in dataclasses.fields(EvaluateOptions)}
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="folder of a Hugging Face causal language model")
    add("--calibrate-text", required=True, metavar="FILE", help="UTF-8 text to calibrate on")
    add("--eval-text", required=True, metavar="FILE", help="UTF-8 text to measure on; held out")
    add("--tokens", type=int, default=defaults["tokens"], metavar="N", help="score at least N tokens (default %(default)s)")
    add("--seq-len", type=int, default=defaults["seq_len"], metavar="N", help="tokens of one evaluation sequence (default %(default)s)")
    add("--quantizers", nargs="+", default=list(QUANTIZER_IDS), metavar="Q",
        help=f"quantizers to compare, for example kivi:group_size=64 (default {' '.join(QUANTIZER_IDS)})")  # fmt: skip
    add("--code-bits", nargs="+", type=_numbers, default=[], metavar="B", help="average code widths, for each quantizer")
    add("--effective-bits", nargs="+", type=_numbers, default=[], metavar="B",
        help="stored bits per element with everything counted, for each quantizer and across them")  # fmt: skip
    add("--strategies", nargs="+", type=_words, default=[list(DEFAULT_STRATEGIES)], metavar="S",
        help=f"any of {', '.join((BASELINE, *STRATEGIES))}; fp32 and uniform are always measured "
        f"(default {' '.join(DEFAULT_STRATEGIES)})")  # fmt: skip
    add("--sinks", type=int, default=defaults["sinks"], metavar="N", help="first tokens kept in fp16 (default %(default)s)")
    add("--window", type=int, default=defaults["window"], metavar="N", help="newest tokens kept in fp16 (default %(default)s)")
    add("--context-tokens", type=int, default=defaults["context_tokens"], metavar="N",
        help="context length at which bytes are counted (default %(default)s)")  # fmt: skip
    add("--page-tokens", type=int, default=defaults["page_tokens"], metavar="N",
        help="tokens in a page of the cache: 16, 32, 64 or 128 (default %(default)s)")  # fmt: skip
    add("--subtract-means", action="store_true", help="take each channel's mean off K and V, as `ratequant calibrate` does")
    add("--json", required=True, metavar="FILE", help="write the rows here")
    add("--bundle", metavar="FILE", help="write calibration, bit maps and curves here, for the report")
    add("--calibration-sequences", type=int, default=defaults["calibration_sequences"], metavar="N", help="default %(default)s")
    add("--calibration-sequence-length", type=int, default=defaults["calibration_sequence_length"], metavar="N", help="default %(default)s")
    add("--batch-size", type=int, default=defaults["batch_size"], metavar="N", help="sequences that run at once (default: at most 8)")
    add("--model-name", default="", metavar="ID", help="id the calibration is stored under (default: the folder's name)")
    add("--endpoint", default=os.environ.get(ENDPOINT_VARIABLE, ""), metavar="HOST:PORT",
        help=f"a running allocator (default ${ENDPOINT_VARIABLE}; else both services are started)")  # fmt: skip
    add("--worker-endpoint", default=os.environ.get(WORKER_ENDPOINT_VARIABLE, ""), metavar="HOST:PORT",
        help=f"a running worker (default ${WORKER_ENDPOINT_VARIABLE})")  # fmt: skip
    add("--data-dir", default="", metavar="DIR", help="keep the started services' data here and use it again")
    add("--record", action="store_true",
        help="attach the measurements to the bit maps, so that the allocator can go by them")  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    # Imported late: torch takes seconds, and --help shouldn't.
    from transformers.utils import logging

    from ratequant.evaluate.bundle import write_json
    from ratequant.evaluate.run import check_writable, evaluate
    from ratequant.evaluate.table import format_table

    logging.disable_progress_bar()  # Status draws its own
    options = options_from(arguments)
    for path in filter(None, (arguments.json, arguments.bundle)):
        check_writable(path)
    result = evaluate(options)
    write_json(arguments.json, result.rows)
    if arguments.bundle:
        result.bundle.write(arguments.bundle)
    print(format_table(result.rows))
    return 0


def options_from(arguments: argparse.Namespace) -> EvaluateOptions:
    """The options the flags stand for. Raises ValueError for a bad value."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(EvaluateOptions)}
    values["quantizers"] = tuple(split_quantizers(arguments.quantizers))
    for name in ("code_bits", "effective_bits", "strategies"):
        values[name] = tuple(value for group in getattr(arguments, name) for value in group)
    return EvaluateOptions(**values)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' isn't a number") from None
