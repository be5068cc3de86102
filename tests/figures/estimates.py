"""Compares ways to get better tables from few tokens: what each does to held-out
perplexity; see `run`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache

from figures import QUANTIZERS, markdown_table, prepare
from inputs import ROOT, model_folder, write_text
from loss_folder import LossFolder
from ratequant.cache import RateQuantCache
from ratequant.capture import loading
from ratequant.capture.digest import model_digest, token_digest
from ratequant.client import Client
from ratequant.evaluate import EvaluateOptions
from ratequant.evaluate.bundle import write_json
from ratequant.evaluate.calibrating import Provenance, calibrate, find_calibration
from ratequant.evaluate.map_source import ANY, MapSource
from ratequant.evaluate.paired import BLOCK_TOKENS, paired_difference
from ratequant.evaluate.perplexity import load_model, streaming_losses
from ratequant.evaluate.status import Status
from ratequant.quantizer import quantizer_name
from ratequant.services import Services
from ratequant.text import load_tokenizer, token_sequences
from ratequant.v1.bit_map_pb2 import BitMap
from ratequant.v1.calibration_pb2 import Calibration
from table_variants import (
    clipped_by_sequence, clipped_by_token, geometric_mean_of_sequences, layer_means, means, median_of_sequences,
    shrunk, toward_c1, winsorised, without_first,
)  # fmt: skip
from token_errors import WIDTHS, TokenErrors, measure_token_errors

# What is chosen on B is reported on A, the text of all other figures: of the
# test text's sequences of 512 tokens the first six, and six from the 64th on.
SLICES = {"B": slice(64, 70), "A": slice(0, 6)}
SEQUENCE = 512
# (quantizer, effective bits).
BUDGETS = (("turboquant", 2.5), (ANY, 2.5), (ANY, 3.0), ("turboquant", 2.0), (ANY, 2.0), ("turboquant", 3.0))
BASE = "16 x 512 tokens"
BASE_SEQUENCES = 16
# Of the calibration text's sequences, those that no variant's tables are from.
FRESH = slice(32, 40)
SINKS = 4
# Of c2 here and the worker's, median over all entries: caches round what waits to be
# packed to fp16, which the sweep doesn't. That shows at 6 bits and more.
_AGREEMENT = 0.02


class Study:
    """Tables, maps and what they cost, with one pair of services."""

    def __init__(self, services: Services, out: Path, status: Status):
        self._client = Client(services.endpoint, services.worker_endpoint)
        self._out, self._status = out, status
        self._text = write_text("valid", out)
        self._tokenizer = load_tokenizer(str(model_folder()))
        count = max(part.stop for part in SLICES.values())
        test = token_sequences(self._tokenizer, write_text("test-head", out).read_text(), count, SEQUENCE)
        self._slices = {name: torch.from_numpy(test[part]).long() for name, part in SLICES.items()}
        self._losses = {name: LossFolder(out / f"estimates-losses-{name}") for name in SLICES}

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The worker's, of BASE; measured, or found in the allocator."""
        options = EvaluateOptions(
            str(model_folder()), str(self._text), str(self._text), effective_bits=(3.0,), quantizers=QUANTIZERS,
            calibration_sequences=BASE_SEQUENCES, calibration_sequence_length=SEQUENCE, sinks=SINKS,
        )  # fmt: skip
        tokens = self._calibration_tokens(BASE_SEQUENCES, SEQUENCE)
        name = find_calibration(self._client, options, Provenance(model_digest(model_folder()), token_digest(tokens)))
        name = name or calibrate(self._client, options, self._text.read_text(), self._status)
        calibration = self._client.get_calibration(options.model_name, name)
        self._check(calibration)
        return calibration

    def _check(self, calibration: Calibration) -> None:
        """That the worker's tables are the means of what this study varies.

        Raises:
          ValueError: they aren't.
        """
        ours = means(_sequences(self.errors(FRESH.stop, SEQUENCE), slice(BASE_SEQUENCES)))
        theirs = np.array([np.reshape(table.c2, (-1, len(WIDTHS))).T for table in calibration.tables])
        apart = float(np.median(np.abs(ours - theirs) / theirs))
        if apart > _AGREEMENT:
            raise ValueError(f"half of all c2 differ from the worker's by {apart:.1%} or more; at most {_AGREEMENT:.0%} is expected")

    def errors(self, sequences: int, length: int) -> TokenErrors:
        """Of the calibration text's first tokens; measured, or read from the folder."""
        path = self._out / f"estimates-errors-{sequences}x{length}.npz"
        if not path.exists():
            self._status.phase(f"measuring {sequences} x {length} tokens one by one")
            tokens = torch.from_numpy(self._calibration_tokens(sequences, length)).long()
            model = loading.load_model(model_folder(), torch.device("cpu"), torch.float32)
            measure_token_errors(model, tokens, QUANTIZERS, SINKS).save(path)
        return TokenErrors.load(path)

    def _calibration_tokens(self, sequences: int, length: int) -> np.ndarray:
        return token_sequences(self._tokenizer, self._text.read_text(), sequences, length)

    def bit_map(self, variant: str, c2: np.ndarray, quantizer: str, bits: float) -> BitMap:
        """The allocator's, loss-projected, from tables of c2."""
        calibration = Calibration()
        calibration.CopyFrom(self.calibration)
        calibration.ClearField("name")
        calibration.ClearField("create_time")
        for table, values in zip(calibration.tables, c2, strict=True):
            table.c2[:] = values.T.ravel().tolist()
        model = "models/estimates-" + "".join(c if c.isalnum() else "-" for c in variant)
        stored = self._client.create_calibration(model, calibration)
        source = MapSource(self._client, model, stored.name, QUANTIZERS, SINKS, 32, 4096)
        return source.bit_map(quantizer, "loss-projected", "effective_bits", bits)

    def losses(self, bit_map: BitMap | None, part: str) -> np.ndarray:
        """Of a slice, measured or known; without quantization for None."""
        known, tokens = self._losses[part], self._slices[part]
        key = "fp32" if bit_map is None else _stored_form(bit_map)
        if key not in known:
            config = self._model.config
            known[key] = streaming_losses(
                self._model,
                tokens,
                lambda n: DynamicCache(config=config) if bit_map is None else RateQuantCache(bit_map, config),
                len(tokens),
            )
        return known[key]

    @functools.cached_property
    def _model(self):
        return load_model(str(model_folder()))


def _stored_form(bit_map: BitMap) -> str:
    """A name for what a map stores: two variants may meet in it."""
    form = BitMap(quantizers=bit_map.quantizers, quantizer_index=bit_map.quantizer_index, width=bit_map.width)
    return token_digest(np.frombuffer(form.SerializeToString(deterministic=True), np.uint8).astype(np.int32))


def _sequences(errors: TokenErrors, part: slice) -> TokenErrors:
    return TokenErrors(*(getattr(errors, field.name)[..., part, :] for field in dataclasses.fields(errors)))


def variants(study: Study) -> dict[str, Callable[[], np.ndarray]]:
    """Everything that is compared: tables of c2 by name."""

    @functools.cache
    def many() -> TokenErrors:
        return study.errors(FRESH.stop, SEQUENCE)

    def base() -> TokenErrors:
        return _sequences(many(), slice(BASE_SEQUENCES))

    heads = study.calibration.geometry.kv_heads
    return {
        BASE: lambda: means(base()),
        "shrunk by half": lambda: shrunk(means(base()), 0.5),
        "parallel": lambda: shrunk(means(base()), 1.0),
        "halfway to c1": lambda: toward_c1(base(), 0.5),
        "c1 scaled": lambda: toward_c1(base(), 1.0),
        "halfway to c1, parallel": lambda: shrunk(toward_c1(base(), 0.5), 1.0),
        "winsorised at 99%": lambda: winsorised(base(), 0.99),
        "median of sequences": lambda: median_of_sequences(base(), BASE_SEQUENCES),
        "median of 4 means": lambda: median_of_sequences(base(), 4),
        "geometric mean of sequences": lambda: geometric_mean_of_sequences(base()),
        "gradients clipped at 99% of tokens": lambda: clipped_by_token(base(), 0.99),
        "sequences' gradients clipped": lambda: clipped_by_sequence(base()),
        "first 32 tokens left out": lambda: without_first(base(), 32),
        "first 128 tokens left out": lambda: without_first(base(), 128),
        "mean over a layer's heads": lambda: layer_means(means(base()), heads),
        "32 x 256 tokens": lambda: means(study.errors(32, 256)),
        "8 x 1024 tokens": lambda: means(study.errors(8, 1024)),
        "32 x 512 tokens": lambda: means(_sequences(many(), slice(2 * BASE_SEQUENCES))),
    }


def expected_loss(c2: np.ndarray, bit_map: BitMap) -> float:
    """Half of the sum of c2 over a map's choices, tables in the order of QUANTIZERS."""
    tables = [QUANTIZERS.index(quantizer_name(quantizer)) for quantizer in bit_map.quantizers]
    chosen = zip(bit_map.quantizer_index, bit_map.width, strict=True)
    return 0.5 * sum(c2[tables[q], WIDTHS.index(width), group] for group, (q, width) in enumerate(chosen))


def measure(study: Study, names: list[str], budgets: list[tuple[str, float]], part: str | None) -> list[dict]:
    """A row for each variant and budget: on a slice, or, for None, without running
    the model: by c2 of other tokens."""
    made = variants(study)
    unknown = set(names) - set(made)
    if unknown:
        raise ValueError(f"no such tables: {', '.join(sorted(unknown))}; there are: {', '.join(made)}")
    tables = {name: made[name]() for name in dict.fromkeys([BASE, *(names or made)])}
    fresh = means(_sequences(study.errors(FRESH.stop, SEQUENCE), FRESH))
    rows = []
    for quantizer, bits in budgets:
        base = None
        for name, c2 in tables.items():
            bit_map = study.bit_map(name, c2, quantizer, bits)
            row = {
                "variant": name, "slice": part, "quantizer": quantizer, "effective_bits": bits,
                "expected_on_fresh_tokens": float(expected_loss(fresh, bit_map)),
            }  # fmt: skip
            if part is not None:
                losses = study.losses(bit_map, part)
                base = losses if base is None else base
                mean, stderr = paired_difference(losses, base)
                perplexity, fp32 = math.exp(losses.mean()), math.exp(study.losses(None, part).mean())
                row |= {"perplexity": perplexity, "increase": perplexity / fp32 - 1, "nll_diff": mean, "nll_diff_stderr": stderr}
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def estimates_table(rows: list[dict]) -> str:
    """A line for each variant and slice, a column for each budget."""
    lines = []
    budgets = list(dict.fromkeys((row["quantizer"], row["effective_bits"]) for row in rows))
    for part, name in dict.fromkeys((row["slice"], row["variant"]) for row in rows):
        found = {(r["quantizer"], r["effective_bits"]): r for r in rows if (r["slice"], r["variant"]) == (part, name)}
        base = {(r["quantizer"], r["effective_bits"]): r for r in rows if (r["slice"], r["variant"]) == (part, BASE)}
        lines.append([part or "fresh", name, *(_cell(found[budget], base[budget]) for budget in budgets)])
    header = ["text", "tables", *(("the four" if q == ANY else q) + f" at {bits:g}" for q, bits in budgets)]
    return (
        "Slices: perplexity above fp32's at equal effective bits, loss-projected; behind it the difference to "
        f"{BASE} as they are, in nats per token ± standard error (paired, blocks of {BLOCK_TOKENS} tokens). Fresh: "
        f"half the sum of c2 on other calibration tokens; behind it the difference to {BASE}.\n\n"
    ) + markdown_table(header, lines)


def _cell(row: dict, base: dict) -> str:
    if row["slice"] is None:
        loss = row["expected_on_fresh_tokens"]
        return f"{loss:.4f}" + ("" if row is base else f" ({loss / base['expected_on_fresh_tokens'] - 1:+.1%})")
    increase = f"{row['increase']:+.1%}"
    return increase if row is base else f"{increase} ({row['nll_diff']:+.4f} ± {row['nll_diff_stderr']:.4f})"


def _budget(text: str) -> tuple[str, float]:
    quantizer, bits = text.rsplit(":", 1)
    return quantizer, float(bits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "figures")
    parser.add_argument("--slice", choices=(*SLICES, "none"), action="append", help="default: both; none: without running the model")
    parser.add_argument("--tables", action="append", default=[], help="a variant, beside the calibration as it is; default: all")
    parser.add_argument("--budget", type=_budget, action="append", help="QUANTIZER:EFFECTIVE_BITS, QUANTIZER may be 'any'; default: all six")
    arguments = parser.parse_args()
    prepare("estimates", arguments.out)
    with Services(model_folder().parent, arguments.out / "estimates-data") as services:
        study = Study(services, arguments.out, Status())
        rows = []
        for part in arguments.slice or SLICES:
            rows += measure(study, arguments.tables, arguments.budget or list(BUDGETS), None if part == "none" else part)
    write_json(arguments.out / "estimates.json", rows)
    text = estimates_table(rows)
    (arguments.out / "estimates.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
