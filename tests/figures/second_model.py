"""The frontier of a second model, of another architecture; see `run`.

No package ships a second real model, so this one is trained here: Qwen3's
architecture (QK-norm, no sinks of its own), 8 layers, 2 KV heads of 64, on the
part of WikiText-2's validation text that the calibration doesn't see.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from figures import Maker, prepare
from frontier import frontier_table, measure
from inputs import ROOT, write_text
from loss_folder import LossFolder
from ratequant.evaluate.bundle import write_json
from ratequant.evaluate.status import Status
from ratequant.services import Services

BITS = (1.5, 2.0, 2.5, 3.0, 4.0)
VOCABULARY = 2048
BATCH, LENGTH, STEPS, LEARNING_RATE = 8, 256, 400, 2e-3
# Characters at the text's beginning that are for the calibration alone.
CALIBRATION_CHARACTERS = 120_000


def make_model(folder: Path, text: str, steps: int = STEPS) -> None:
    """Trains the model on `text` into a Hugging Face folder that is there whole or
    not at all. The same on one machine each time."""
    if folder.is_dir():
        return
    tokenizer = _tokenizer(text)
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=8192, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).train()
    ids = torch.tensor(tokenizer(text)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        starts = torch.randint(len(ids) - LENGTH, (BATCH,)).tolist()
        batch = torch.stack([ids[start : start + LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"training: step {step} of {steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


def _tokenizer(text: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "figures")
    arguments = parser.parse_args()
    prepare("second-model", arguments.out)
    text = write_text("valid", arguments.out).read_text(encoding="utf-8")
    folder = arguments.out / "models" / "qwen3-wikitext"
    folder.parent.mkdir(exist_ok=True)
    make_model(folder, text[CALIBRATION_CHARACTERS:])
    with Services(folder.parent, arguments.out / "second-data") as services:
        maker = Maker(services, arguments.out, Status(), folder)
        found = measure(maker, LossFolder(arguments.out / "second-losses"), BITS)
    write_json(arguments.out / "second-model.json", found.rows)
    report = frontier_table(found, BITS)
    (arguments.out / "second-model.md").write_text(report + "\n", encoding="utf-8")
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
