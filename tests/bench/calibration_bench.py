#!/usr/bin/env python3
"""A whole calibration of SmolLM2-135M on the CPU, through the worker and its
capture engine, against the model's forward and backward pass alone.

The same sequences, in turns. The pass alone is plain transformers: its own
attention and cache, the loss by torch, gradients of the inputs and so of every
K and V; model and tokenizer are loaded already, which the calibration does
itself within its time.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "clients/python"), str(ROOT / "build/python")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

from ratequant.capture.loading import load_model  # noqa: E402
from ratequant.client import Client  # noqa: E402
from ratequant.services import Services  # noqa: E402
from ratequant.text import read_text, token_sequences  # noqa: E402

MODEL = ROOT / "build/models/SmolLM2-135M-Instruct"


def plain_pass(model: torch.nn.Module, sequences: torch.Tensor) -> float:
    """Seconds of forward and backward over [sequences, tokens] ids, one sequence at a time."""
    start = time.perf_counter()
    for ids in sequences:
        embeddings = model.get_input_embeddings()(ids[None]).detach().requires_grad_()
        logits = model(inputs_embeds=embeddings, use_cache=False).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:], reduction="sum").backward()
        assert embeddings.grad is not None and bool(embeddings.grad.isfinite().all())
    return time.perf_counter() - start


def calibrate(client: Client, text: str, sequences: int, length: int) -> float:
    """Seconds of one calibration, from the request to its publication."""
    start = time.perf_counter()
    *_, last = client.calibrate_model("smollm2", str(MODEL), text, sequences=sequences, sequence_length=length)
    assert last.phase == "DONE" and last.published
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 x 128 tokens, where starting the engine dominates")
    quick = parser.parse_args().quick
    count, length, rounds = (4, 128, 1) if quick else (16, 512, 3)
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} isn't there; run deploy/local/setup")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        make_text = [sys.executable, ROOT / "deploy/local/make_text.py", folder]
        subprocess.run(make_text, check=True, stdout=subprocess.DEVNULL)
        text = read_text(pathlib.Path(folder) / "calibration.txt")
    sequences = torch.from_numpy(token_sequences(MODEL, text, count, length).astype("int64"))
    model = load_model(MODEL)
    plain_pass(model, sequences[:1])
    ratios, seconds = [], []
    with Services(MODEL.parent) as services:
        with Client(endpoint=services.endpoint, worker_endpoint=services.worker_endpoint) as client:
            for _ in range(rounds):
                before = plain_pass(model, sequences)
                seconds.append(calibrate(client, text, count, length))
                ratios.append(2 * seconds[-1] / (before + plain_pass(model, sequences)))
    ratio = statistics.median(ratios)
    print(
        json.dumps(
            {
                "row": "CPU calibration of SmolLM2-135M",
                "measured": ratio,
                "unit": "x",
                "against": "model forward and backward alone",
                "goal": "<= 1.3x",
                "met": None if quick else ratio <= 1.3,
                "note": f"{count} x {length} tokens, {statistics.median(seconds):.1f} s with loading model and engine; "
                f"{rounds} rounds, {min(ratios):.2f}-{max(ratios):.2f}x",
            }
        )
    )


if __name__ == "__main__":
    main()
