"""Measures what generation keeps: greedy tokens and passkeys; see `run`."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import AutoTokenizer, DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from figures import markdown_table, prepare
from frontier import ALL, PAGE_TOKENS
from inputs import ROOT, model_folder, write_text
from ratequant import BitMap, Client, RateQuantCache
from ratequant.evaluate.bundle import write_json
from ratequant.evaluate.perplexity import load_model
from ratequant.services import Services
from ratequant.text import token_sequences

BITS = (2.0, 2.5, 3.0, 4.0)
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 50, 128, 64
PASSKEYS, CONTEXT_TOKENS = 10, 4096
_BATCH = 10


def bit_maps(text: str, bits: tuple[float, ...]) -> Iterator[tuple[str, BitMap]]:
    """Maps across all quantizers, with and without means, of one calibration each."""
    with Services(model_folder().parent) as services, Client(services.endpoint, services.worker_endpoint) as client:
        for means in (False, True):
            name = "smollm2-means" if means else "smollm2"
            for _ in client.calibrate_model(
                name, str(model_folder()), text, quantizers=ALL, page_tokens=PAGE_TOKENS, subtract_means=means
            ):
                pass
            for budget in bits:
                label = f"across all, {budget:g} effective bits" + (", means subtracted" if means else "")
                yield label, client.get_bit_map(name, effective_bits=budget)


@torch.inference_mode()
def greedy(model: PreTrainedModel, make: Callable[[], Cache], prompts: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` tokens behind each of [prompts, tokens]."""
    options = {"max_new_tokens": count, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = [
        model.generate(some, attention_mask=torch.ones_like(some), past_key_values=make(), **options)
        for some in prompts.split(_BATCH)
    ]
    return torch.cat(out)[:, prompts.shape[1] :]


def passkey_prompts(tokenizer, filler: str) -> tuple[torch.Tensor, list[str]]:
    """[PASSKEYS, CONTEXT_TOKENS] prompts that ask for a number somewhere in other
    text, at depths spread evenly, and the numbers."""
    generator = random.Random(1)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    other = encode(filler)
    question = encode("\n\nWhat is the pass key? The pass key is")
    rows, keys = [], []
    for number in range(PASSKEYS):
        key = str(generator.randrange(10000, 100000))
        needle = encode(f"\n\nThe pass key is {key}. Remember it. {key} is the pass key.\n\n")
        room = CONTEXT_TOKENS - len(needle) - len(question)
        start = generator.randrange(len(other) - room)
        some = other[start : start + room]
        depth = room * number // (PASSKEYS - 1)
        rows.append(some[:depth] + needle + some[depth:] + question)
        keys.append(key)
    return torch.tensor(rows), keys


def passkeys_found(model: PreTrainedModel, tokenizer, make: Callable[[], Cache], prompts: torch.Tensor, keys: list[str]) -> list[bool]:
    """For each prompt, whether the number comes next."""
    found = []
    for prompt, key in zip(prompts, keys, strict=True):
        answer = tokenizer.decode(greedy(model, make, prompt[None], 8)[0])
        found.append(answer.strip().startswith(key))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "figures")
    parser.add_argument("--bits", type=float, nargs="+", default=BITS, help="budgets")
    arguments = parser.parse_args()
    prepare("generation", arguments.out)
    calibration, held_out = (write_text(name, arguments.out).read_text(encoding="utf-8") for name in ("valid", "test-head"))
    model, tokenizer = load_model(str(model_folder())), AutoTokenizer.from_pretrained(model_folder())
    prompts = torch.from_numpy(token_sequences(model_folder(), held_out, PROMPTS, PROMPT_TOKENS).astype("int64"))
    questions, keys = passkey_prompts(tokenizer, held_out)

    def stock() -> Cache:
        return DynamicCache(config=model.config)

    wanted = greedy(model, stock, prompts, NEW_TOKENS)
    known = passkeys_found(model, tokenizer, stock, questions, keys)
    rows = [{"cache": "fp32", "same": 1.0, "until": float(NEW_TOKENS), "passkeys": sum(known), "kept": sum(known)}]
    for label, bit_map in bit_maps(calibration, tuple(arguments.bits)):

        def make(bit_map: BitMap = bit_map) -> Cache:
            return RateQuantCache(bit_map, model.config)

        same = greedy(model, make, prompts, NEW_TOKENS) == wanted
        found = passkeys_found(model, tokenizer, make, questions, keys)
        rows.append(
            {
                "cache": label,
                "same": float(same.all(dim=1).float().mean()),
                "until": float(same.long().cumprod(dim=1).sum(dim=1).float().mean()),
                "passkeys": sum(found),
                "kept": sum(a and b for a, b in zip(found, known, strict=True)),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    write_json(arguments.out / "generation.json", rows)
    header = [
        "cache", f"first {NEW_TOKENS} tokens the same", "tokens before the first difference",
        f"passkeys found of {PASSKEYS}", "of those that fp32 finds",
    ]  # fmt: skip
    lines = [
        [row["cache"], f"{row['same']:.0%}", f"{row['until']:.1f}", str(row["passkeys"]), f"{row['kept']} of {rows[0]['kept']}"]
        for row in rows
    ]
    text = (
        f"Greedy decoding behind {PROMPTS} prompts of {PROMPT_TOKENS} tokens; passkeys of five digits in {CONTEXT_TOKENS:,} "
        "tokens of other text, at depths spread evenly.\n\n"
    ) + markdown_table(header, lines)
    (arguments.out / "generation.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
