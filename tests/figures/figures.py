"""Makes the figures; see `run`."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from inputs import (
    REFERENCE_LENGTH, REFERENCE_SEQUENCES, ROOT, ReferenceResult, model_folder, reference_results, reference_tokens,
    shared_folder, write_text,
)  # fmt: skip
from ratequant.cache import RateQuantCache
from ratequant.evaluate import EvaluateOptions, Evaluation, evaluate
from ratequant.evaluate.bundle import write_json
from ratequant.evaluate.configurations import Configuration
from ratequant.evaluate.paired import BLOCK_TOKENS, paired_difference
from ratequant.evaluate.perplexity import load_model, streaming_losses
from ratequant.evaluate.status import Status
from ratequant.services import Services

QUANTIZERS = ("rtn", "kivi", "quarot", "turboquant")
CODE_BITS = (2.0, 2.5, 3.0, 4.0)
EFFECTIVE_BITS = (2.5, 3.0, 3.5, 4.0)
STRATEGIES = ("uniform", "k-ceil-v-floor", "paper", "loss-projected")
COMPARED_STRATEGIES = ("uniform", "k-ceil-v-floor", "loss-projected")
# What counts as beyond noise, in standard errors.
NOISE = 2.0


@dataclasses.dataclass
class Figures:
    """Everything that was measured, and the Markdown about it."""

    evaluations: dict[str, Evaluation]
    reference_rows: list[dict]
    sections: list[str]


class Maker:
    """Runs evaluations against one pair of services, so that a calibration is
    made once."""

    def __init__(self, services: Services, texts: Path, status: Status, model: Path | None = None):
        """`model` is the demo's when left out."""
        self._services = services
        self._model = model or model_folder()
        self._calibrate_text = write_text("valid", texts)
        self._eval_text = write_text("test-head", texts)
        self._status = status

    def evaluate(
        self,
        tokens: np.ndarray | None = None,
        *,
        wanted: Sequence[Configuration] | None = None,
        known: MutableMapping[str, np.ndarray] | None = None,
        **values,
    ) -> Evaluation:
        """`evaluate` on WikiText-2; `values` are fields of EvaluateOptions."""
        options = EvaluateOptions(
            str(self._model),
            str(self._calibrate_text),
            str(self._eval_text),
            **({"tokens": 3000} | values),
            endpoint=self._services.endpoint,
            worker_endpoint=self._services.worker_endpoint,
        )
        return evaluate(options, self._status, tokens=tokens, wanted=wanted, known=known)

    def evaluate_as_reference(self, **values) -> Evaluation:
        """The same on the reference's tokens, calibrated on the reference's."""
        return self.evaluate(
            reference_tokens(),
            calibration_sequences=REFERENCE_SEQUENCES,
            calibration_sequence_length=REFERENCE_LENGTH,
            **values,
        )


def prepare(name: str, out: Path) -> None:
    """Makes the folder that the figures called `name` go to, and keeps transformers
    quiet. Ends the program where there is no data."""
    if not shared_folder().is_dir():
        sys.exit(f"{name}: no data at {shared_folder()}; set RATEQUANT_SHARED")
    logging.disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)


def measure_reference_maps(results: list[ReferenceResult], status: Status) -> list[dict]:
    """Perplexities of the reference's own maps, through this project's cache."""
    model = load_model(str(model_folder()))
    tokens = torch.from_numpy(reference_tokens()).long()
    status.phase("measuring the reference's maps", len(results) * (tokens.numel() - len(tokens)))
    rows = []
    for result in results:
        bit_map = {
            "geometry": {"layers": 30, "kv_heads": 3, "head_dim": 64},
            "quantizers": [result.quantizer],
            "quantizer_index": [0] * len(result.widths),
            "width": result.widths,
        }
        losses = streaming_losses(
            model,
            tokens,
            lambda n, m=bit_map: RateQuantCache(m, model.config, sink_tokens=0, window=0),
            len(tokens),
            status.advance,
        )
        rows.append(dataclasses.asdict(result) | {"measured": math.exp(losses.mean())})
    status.clear()
    return rows


def make_all(maker: Maker, status: Status) -> Figures:
    """All figures."""
    code = maker.evaluate(quantizers=QUANTIZERS, code_bits=CODE_BITS, strategies=STRATEGIES)
    effective = maker.evaluate(quantizers=QUANTIZERS, effective_bits=EFFECTIVE_BITS, strategies=("loss-projected",))
    results = [r for r in reference_results() if r.strategy in COMPARED_STRATEGIES and r.code_bits in CODE_BITS]
    bare = maker.evaluate_as_reference(
        quantizers=tuple(dict.fromkeys(result.quantizer for result in results)),
        code_bits=CODE_BITS,
        strategies=STRATEGIES,
        sinks=0,
        window=0,
    )
    reference_rows = measure_reference_maps(results, status)
    sections = [
        "## With 4 sinks and a window of 32, at equal code bits\n\n" + code_table(code),
        "## Across quantizers, at equal effective bits\n\n" + effective_table(effective),
        "## Without sinks and window, beside the reference\n\n" + reference_table(bare, reference_rows),
        "## What must hold\n\n" + "\n".join(checks(code, effective)),
    ]
    return Figures({"code": code, "effective": effective, "bare": bare}, reference_rows, sections)


def make_subset(maker: Maker) -> Figures:
    """A few rows: enough to see that the whole chain still gives the figures."""
    code = maker.evaluate_as_reference(quantizers=("kivi",), code_bits=(2.5,), strategies=("loss-projected",))
    return Figures({"code": code}, [], ["## Subset: kivi at 2.5 code bits\n\n" + code_table(code)])


def code_table(evaluation: Evaluation) -> str:
    """A row for each quantizer and width, a column for each strategy."""
    rows = evaluation.rows
    strategies = [s for s in STRATEGIES if any(row["strategy"] == s for row in rows)]
    lines = []
    for quantizer, bits in dict.fromkeys((r["quantizer"], r["budget"]) for r in rows if r["budget_kind"] == "code_bits"):
        found = {r["strategy"]: r for r in rows if (r["quantizer"], r["budget"]) == (quantizer, bits)}
        size = found["uniform"]
        cells = [quantizer, f"{bits:g}", f"{size['effective_bits']:.2f}", f"{size['bytes_per_token']:,.0f}"]
        lines.append(cells + [_cell(found.get(strategy)) for strategy in strategies])
    header = ["quantizer", "code bits", "effective bits", "bytes/token", *strategies]
    return _baseline(rows) + markdown_table(header, lines)


def effective_table(evaluation: Evaluation) -> str:
    """A row for each budget, with the difference of the mix to every single
    quantizer."""
    lines = []
    for bits in EFFECTIVE_BITS:
        mix = find_row(evaluation, "any", bits)
        if mix is None:
            continue
        lines.append([f"{bits:g}", "across quantizers", f"{mix['effective_bits']:.3f}", f"{mix['bytes_per_token']:,.0f}", _cell(mix), ""])
        for quantizer in QUANTIZERS:
            single = find_row(evaluation, quantizer, bits)
            if single is None:
                lines.append([f"{bits:g}", quantizer, "–", "–", "no map", ""])
                continue
            mean, stderr = difference(evaluation, mix, single)
            lines.append(
                [f"{bits:g}", quantizer, f"{single['effective_bits']:.3f}", f"{single['bytes_per_token']:,.0f}",
                 _cell(single), f"{mean:+.4f} ± {stderr:.4f}"]
            )  # fmt: skip
    header = ["budget", "quantizer", "effective bits", "bytes/token", "loss-projected", "mix minus this"]
    return _baseline(evaluation.rows) + markdown_table(header, lines)


def reference_table(bare: Evaluation, reference_rows: list[dict]) -> str:
    """Perplexity of the reference, of its maps in this project's cache, and of
    this project's own maps."""
    lines = []
    for entry in reference_rows:
        own = next(
            (
                row
                for row in bare.rows
                if (row["quantizer"], row["budget"], row["strategy"])
                == (entry["quantizer"], entry["code_bits"], entry["strategy"])
            ),
            None,
        )
        lines.append(
            [entry["quantizer"], f"{entry['code_bits']:g}", entry["strategy"], f"{entry['perplexity']:.2f}",
             f"{entry['measured']:.2f}", f"{math.log(entry['measured'] / entry['perplexity']):+.3f}",
             "" if own is None else f"{own['perplexity']:.2f}",
             "" if own is None else f"{own['nll_diff_to_fp_stderr']:.3f}"]
        )  # fmt: skip
    header = ["quantizer", "code bits", "strategy", "reference", "its map here", "ln ratio", "own map", "stderr of own to fp32"]
    return _baseline(bare.rows) + markdown_table(header, lines)


def checks(code: Evaluation, effective: Evaluation) -> list[str]:
    """One line for each claim: held or not, with the figures."""
    lines = []
    for row in code.rows + effective.rows:
        if row["strategy"] != "loss-projected" or row["nll_diff_to_uniform"] is None:
            continue
        mean, stderr = row["nll_diff_to_uniform"], row["nll_diff_stderr"]
        what = f"{row['quantizer']} at {row['budget']:g} {row['budget_kind'].replace('_', ' ')}: {mean:+.4f} ± {stderr:.4f} to uniform"
        if row["budget_kind"] == "code_bits" and row["budget"] == 2.5:
            lines.append(_verdict(mean + NOISE * stderr < 0, f"beats uniform beyond noise, {what}"))
        else:
            lines.append(_verdict(mean - NOISE * stderr <= 0, f"doesn't lose to uniform beyond noise, {what}"))
    mix = find_row(effective, "any", 3.0)
    for quantizer in QUANTIZERS:
        single = find_row(effective, quantizer, 3.0)
        if mix is not None and single is not None:
            mean, stderr = difference(effective, mix, single)
            what = f"mix beats {quantizer} at 3 effective bits beyond noise: {mean:+.4f} ± {stderr:.4f}"
            lines.append(_verdict(mean + NOISE * stderr < 0, what))
    return lines


def find_row(
    evaluation: Evaluation, quantizer: str, bits: float, strategy: str = "loss-projected"
) -> dict | None:
    """The row of a strategy at so many effective bits."""
    wanted = (quantizer, strategy, "effective_bits", bits)
    for row in evaluation.rows:
        if (row["quantizer"], row["strategy"], row["budget_kind"], row["budget"]) == wanted:
            return row
    return None


def difference(evaluation: Evaluation, row: dict, other: dict) -> tuple[float, float]:
    """Paired difference in loss of two rows, and its standard error."""
    return paired_difference(evaluation.losses[row["bit_map"]], evaluation.losses[other["bit_map"]])


def _verdict(held: bool, text: str) -> str:
    return f"- {'holds' if held else '**DOES NOT HOLD**'}: {text}"


def _baseline(rows: list[dict]) -> str:
    fp32 = rows[0]
    return (
        f"fp32 {fp32['perplexity']:.2f}, {fp32['tokens']:,} scored tokens. In brackets the difference in nats per token to "
        f"uniform at the same budget, ± standard error (paired, blocks of {BLOCK_TOKENS} tokens).\n\n"
    )


def _cell(row: dict | None) -> str:
    if row is None:
        return "–"
    text = f"{row['perplexity']:.2f}"
    if row["strategy"] != "uniform" and row["nll_diff_to_uniform"] is not None:
        text += f" ({row['nll_diff_to_uniform']:+.3f} ± {row['nll_diff_stderr']:.3f})"
    return text


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", action="store_true", help="a few rows only")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "figures")
    arguments = parser.parse_args()
    prepare("figures", arguments.out)
    status = Status()
    with Services(model_folder().parent, arguments.out / "data") as services:
        maker = Maker(services, arguments.out, status)
        figures = make_subset(maker) if arguments.subset else make_all(maker, status)
    for name, evaluation in figures.evaluations.items():
        write_json(arguments.out / f"{name}.json", evaluation.rows)
        evaluation.bundle.write(arguments.out / f"{name}-bundle.json")
    if figures.reference_rows:
        write_json(arguments.out / "reference.json", figures.reference_rows)
    report = "\n\n".join(["# Figures: SmolLM2-135M-Instruct on WikiText-2", *figures.sections]) + "\n"
    (arguments.out / "figures.md").write_text(report, encoding="utf-8")
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
