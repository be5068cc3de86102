"""Measures the objective attention-output beside loss-projected; see `run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from figures import Maker, difference, markdown_table, prepare
from inputs import ROOT, model_folder
from loss_folder import LossFolder
from ratequant.evaluate import Evaluation
from ratequant.evaluate.bundle import write_json
from ratequant.evaluate.configurations import Configuration
from ratequant.evaluate.map_source import ANY
from ratequant.evaluate.paired import BLOCK_TOKENS
from ratequant.evaluate.status import Status
from ratequant.services import Services

QUANTIZERS = ("kivi", "quarot", "turboquant")
BITS = (2.0, 2.5, 3.0)
STRATEGIES = ("uniform", "loss-projected", "attention-output")


def configurations(
    bits: tuple[float, ...] = BITS, quantizers: tuple[str, ...] = QUANTIZERS
) -> list[Configuration]:
    """Each of `quantizers` at equal code bits, and the mix of all at equal effective bits."""
    queries = [(ANY, "effective_bits", b) for b in bits] + [(q, "code_bits", b) for b in bits for q in quantizers]
    return [Configuration(q, strategy, kind, b) for q, kind, b in queries for strategy in STRATEGIES]


def attention_table(found: Evaluation) -> str:
    """A line for each quantizer and budget: what every strategy measured, and how
    far the two objectives are apart."""
    by_query: dict[tuple, dict[str, dict]] = {}
    for row in found.rows[1:]:
        by_query.setdefault((row["quantizer"], row["budget_kind"], row["budget"]), {})[row["strategy"]] = row
    lines = []
    for (quantizer, kind, budget), rows in by_query.items():
        if not rows.keys() >= {"loss-projected", "attention-output"}:
            continue
        line = ["across the three" if quantizer == ANY else quantizer, f"{budget:g} {kind.replace('_bits', '')}"]
        line += [f"{rows[s]['perplexity']:.2f}" if s in rows else "–" for s in STRATEGIES]
        for one, other in (("attention-output", "loss-projected"), ("attention-output", "uniform")):
            if other not in rows:
                line.append("–")
                continue
            mean, stderr = difference(found, rows[one], rows[other])
            line.append(f"{mean:+.4f} ± {stderr:.4f}")
        lines.append(line)
    fp32 = found.rows[0]
    header = ["quantizer", "bits", *STRATEGIES, "attention-output minus loss-projected", "attention-output minus uniform"]
    return (
        f"fp32 {fp32['perplexity']:.2f}, {fp32['tokens']:,} scored tokens; differences in nats per token ± standard error "
        f"(paired, blocks of {BLOCK_TOKENS} tokens).\n\n" + markdown_table(header, lines)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "figures")
    parser.add_argument("--bits", type=float, nargs="+", default=BITS, help="budgets")
    parser.add_argument("--alone", choices=QUANTIZERS, nargs="+", default=QUANTIZERS, help="quantizers without others")
    arguments = parser.parse_args()
    prepare("attention-output", arguments.out)
    bits = tuple(arguments.bits)
    with Services(model_folder().parent, arguments.out / "data") as services:
        found = Maker(services, arguments.out, Status()).evaluate(
            quantizers=QUANTIZERS,
            code_bits=bits,
            strategies=STRATEGIES,
            wanted=configurations(bits, tuple(arguments.alone)),
            known=LossFolder(arguments.out / "frontier-losses"),  # of the same text
        )
    write_json(arguments.out / "attention-output.json", found.rows)
    text = attention_table(found)
    (arguments.out / "attention-output.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
