"""`python -m ratequant`: evaluations, reports, recorded captures and checks for drift."""

from __future__ import annotations

import argparse
import sys

from ratequant.capture import command as capture_command
from ratequant.capture.errors import CaptureError
from ratequant.check import command as check_command
from ratequant.errors import RateQuantError
from ratequant.evaluate import command as evaluate_command
from ratequant.report import command as report_command
from ratequant.runtime import KvRuntimeError
from ratequant.services import ServiceError

_EXAMPLES = """\
examples:
  python -m ratequant evaluate --model build/models/SmolLM2-135M-Instruct \\
      --calibrate-text calibration.txt --eval-text held-out.txt --tokens 3000 \\
      --code-bits 2.5 --effective-bits 3.0 --json rows.json --bundle bundle.json
  python -m ratequant report rows.json bundle.json --out report.html

Each verb has a --help of its own. Models, calibrations and bit maps are listed
and fetched by the `ratequant` command."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb. Exit status: 0, 1 when it failed, 2 for a bad flag, 130
    after Ctrl-C; a verb may have others."""
    parser = argparse.ArgumentParser(
        prog="python -m ratequant",
        description="RateQuant: mixed-precision KV-cache quantization, measured and drawn.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="VERB", required=True)
    evaluate_command.add_command(commands)
    report_command.add_command(commands)
    capture_command.add_command(commands)
    check_command.add_command(commands)
    parsed = parser.parse_args(arguments)
    try:
        return parsed.run(parsed)
    except (CaptureError, RateQuantError, ServiceError, KvRuntimeError, ValueError, OSError) as error:
        print(f"ratequant: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ratequant: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
