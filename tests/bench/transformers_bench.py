#!/usr/bin/env python3
"""RateQuantCache in a model from transformers, against the caches that
transformers has itself: decode speed, perplexity, and greedy generation.

SmolLM2-135M, fp32, on the CPU. Speed: one new token of one sequence, the whole
model, all caches in turns in this process; the quantized ones between two of
their requantizations. Perplexity: held-out text in chunks of 32 tokens. Bit maps
come from a calibration through the services, with a budget of as many effective
bits, everything counted, as the others' codes, scales and zero points take.
The text is shared/data's WikiText-2. Needs optimum-quanto and hqq, which nothing
else does.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("clients/python", "build/python", "tests/figures")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "RATEQUANT_BIN_DIR" in os.environ:  # the build that is measured
    library = pathlib.Path(os.environ["RATEQUANT_BIN_DIR"]).parent / "lib/libratequant_kv.so"
    os.environ.setdefault("RATEQUANT_KV_LIBRARY", str(library))

import torch  # noqa: E402
from inputs import shared_folder  # noqa: E402
from stock_caches import Kind, filled, missing_packages, packed, quantized, stock, uniform  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402
from wikitext import detokenize  # noqa: E402

from ratequant import BitMap, Client  # noqa: E402
from ratequant.evaluate.perplexity import load_model, streaming_losses  # noqa: E402
from ratequant.services import Services  # noqa: E402
from ratequant.text import token_sequences  # noqa: E402

MODEL = ROOT / "build/models/SmolLM2-135M-Instruct"
QUANTIZERS = ["rtn", "kivi", "kivi:group_size=64", "quarot", "turboquant", "tcq"]
SPEED, PERPLEXITY, GREEDY = "transformers decode", "transformers perplexity", "transformers greedy, 4 bits"
NEW_TOKENS = 64


def bit_maps(text: str, budgets: list[float], quick: bool) -> dict[float, BitMap]:
    """The best map for each budget in effective bits, from a calibration on `text`."""
    sequences, length = (4, 128) if quick else (16, 512)
    with Services(MODEL.parent) as services:
        with Client(services.endpoint, services.worker_endpoint) as client:
            for _ in client.calibrate_model(
                "smollm2", str(MODEL), text, quantizers=QUANTIZERS, sequences=sequences, sequence_length=length,
                page_tokens=64,
            ):  # fmt: skip
                pass
            return {bits: client.get_bit_map("smollm2", effective_bits=bits) for bits in budgets}


def decode_times(model: PreTrainedModel, kinds: list[Kind], ids: torch.Tensor, tokens: int, rounds: int) -> list[float]:
    """Median seconds of a step behind `tokens` tokens, for each kind of cache."""
    start = stock(model).make()
    model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=start)
    keys, values = (torch.stack([getattr(layer, part) for layer in start.layers]) for part in ("keys", "values"))
    caches = [filled(model, kind, keys, values, tokens) for kind in kinds]
    times: list[list[float]] = [[] for _ in kinds]
    for _ in range(rounds + 1):
        for kind, cache, spent in zip(kinds, caches, times):
            model.set_attn_implementation(kind.attention)
            with torch.inference_mode():
                begin = time.perf_counter()
                model(input_ids=ids[:, :1], past_key_values=cache)
                spent.append(time.perf_counter() - begin)
    return [statistics.median(spent[1:]) for spent in times]


def mean_loss(model: PreTrainedModel, kind: Kind, sequences: torch.Tensor) -> float:
    """Nats per token."""
    model.set_attn_implementation(kind.attention)
    return float(streaming_losses(model, sequences, lambda rows: kind.make(), len(sequences)).mean())


@torch.inference_mode()
def greedy(model: PreTrainedModel, kind: Kind, prompts: torch.Tensor) -> torch.Tensor:
    """NEW_TOKENS tokens behind each of [prompts, tokens], ten prompts at a time."""
    model.set_attn_implementation(kind.attention)
    options = dict(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    out = [
        model.generate(some, attention_mask=torch.ones_like(some), past_key_values=kind.make(), **options)
        for some in prompts.split(10)
    ]
    return torch.cat(out)[:, prompts.shape[1] :]


def say(text: str) -> None:
    print(f"transformers_bench: {text}", file=sys.stderr, flush=True)


def row(name: str, measured: float | None, unit: str, against: str, goal: str, met: bool | None, note: str) -> None:
    values = (name, measured, unit, against, goal, met, note)
    print(json.dumps(dict(zip(("row", "measured", "unit", "against", "goal", "met", "note"), values))), flush=True)


def measure_speed(model: PreTrainedModel, bit_map: BitMap, ids: torch.Tensor, quick: bool) -> None:
    others = [stock(model), *(quantized(model, backend, 4) for backend in ("quanto", "hqq"))]
    kinds = [packed(model, "RateQuant 4.5", bit_map), *others]
    worst, notes = float("inf"), []
    for tokens in (2048,) if quick else (2048, 8192, 32768):
        mine, *theirs = decode_times(model, kinds, ids, tokens, 5 if quick else 9)
        ratios = [spent / mine for spent in theirs]
        worst = min(worst, *ratios[1:])
        listed = ", ".join(f"{kind.name} {ratio:.2f}x" for kind, ratio in zip(others, ratios))
        notes.append(f"{tokens} tokens: {mine * 1e3:.0f} ms, {listed}")
        say(notes[-1])
    against, goal = "quanto and hqq at 4 bits, DynamicCache in fp32", "faster than both at 2k, 8k, 32k tokens"
    row(SPEED, worst, "x", against, goal, worst > 1, "; ".join(notes))


def measure_perplexity(model: PreTrainedModel, maps: dict[float, BitMap], sequences: torch.Tensor) -> None:
    whole = mean_loss(model, stock(model), sequences)
    worst, notes = -float("inf"), [f"fp32 {whole:.4f} nats"]
    for bits in (2, 4):
        mine = mean_loss(model, packed(model, f"RateQuant {bits + 0.5}", maps[bits + 0.5]), sequences)
        theirs = {name: mean_loss(model, quantized(model, name, bits), sequences) for name in ("quanto", "hqq")}
        worst = max(worst, mine - min(theirs.values()))
        listed = ", ".join(f"{name} {loss - whole:+.4f}" for name, loss in theirs.items())
        notes.append(f"{bits + 0.5} effective bits {mine - whole:+.4f}, {listed}")
        say(notes[-1])
    against, goal = "quanto and hqq at equal effective bits", "a smaller loss at 2.5 and 4.5"
    row(PERPLEXITY, worst, "nats", against, goal, worst < 0, "; ".join(notes))


def measure_greedy(model: PreTrainedModel, maps: dict[float, BitMap], prompts: torch.Tensor) -> None:
    want = greedy(model, stock(model), prompts)
    kinds = [packed(model, f"turboquant {bits}", uniform(model, "turboquant", bits)) for bits in (16, 8)]
    kinds.append(packed(model, "map of 4.5 effective bits", maps[4.5]))
    kinds += [quantized(model, backend, 4) for backend in ("quanto", "hqq")]
    agree, notes = {}, []
    for kind in kinds:
        same = greedy(model, kind, prompts) == want
        agree[kind.name] = float(same.all(dim=1).float().mean())
        until = same.long().cumprod(dim=1).sum(dim=1).float().mean().item()
        notes.append(f"{kind.name} {agree[kind.name]:.0%} (first difference after {until:.0f} tokens)")
        say(notes[-1])
    # What rounding alone does: the same model and cache in bfloat16.
    rounded = greedy(model.bfloat16(), stock(model), prompts) == want
    model.float()
    notes.append(f"the model in bfloat16 with its own cache {rounded.all(dim=1).float().mean():.0%}")
    say(notes[-1])
    share = agree["map of 4.5 effective bits"]
    goal = f"the first {NEW_TOKENS} tokens of >= 90% of 50 prompts"
    row(GREEDY, share, "of prompts", "the fp32 cache's tokens", goal, share >= 0.9, "; ".join(notes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="2k tokens, a small calibration, 10 prompts")
    quick = parser.parse_args().quick
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} isn't there; run deploy/local/setup")
    text_folder = shared_folder() / "data" / "wikitext-2"
    why = ""
    if missing := missing_packages():
        why = f"not measured: {' and '.join(missing)} not installed (build/venv/bin/pip install {' '.join(missing)})"
    elif not text_folder.is_dir():
        why = f"not measured: no text at {text_folder} (RATEQUANT_SHARED)"
    if why:
        for name in (SPEED, PERPLEXITY, GREEDY):
            row(name, None, "", "transformers' own caches", "", None, why)
        return
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    valid, held_out = (
        detokenize((text_folder / name).read_text(encoding="utf-8")) for name in ("valid.txt", "test-head.txt")
    )
    count = 10 if quick else 50
    sequences = torch.from_numpy(token_sequences(MODEL, held_out, 1 if quick else 3, 1024).astype("int64"))
    prompts = torch.from_numpy(token_sequences(MODEL, held_out, count, 128).astype("int64"))
    maps = bit_maps(valid, [2.5, 4.5], quick)
    model = load_model(str(MODEL))
    measure_speed(model, maps[4.5], sequences[:1], quick)
    measure_perplexity(model, maps, sequences)
    measure_greedy(model, maps, prompts)


if __name__ == "__main__":
    main()
