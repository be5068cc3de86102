"""The table that puts attention-output beside loss-projected."""

from __future__ import annotations

import math

import numpy as np

from attention_output import STRATEGIES, attention_table, configurations
from ratequant.evaluate import Evaluation
from ratequant.evaluate.paired import paired_difference


def test_the_table_has_every_query_and_the_paired_differences() -> None:
    generator = np.random.default_rng(2)
    losses = {"": generator.gamma(2.0, 1.5, (6, 511))}
    rows = [{"strategy": "fp32", "perplexity": math.exp(losses[""].mean()), "tokens": losses[""].size}]
    for wanted in configurations((2.5,)):
        name = str(wanted)
        losses[name] = losses[""] + generator.normal(0.1 - 0.02 * STRATEGIES.index(wanted.strategy), 0.1, losses[""].shape)
        rows.append(vars(wanted) | {"bit_map": name, "perplexity": math.exp(losses[name].mean())})
    lines = attention_table(Evaluation(rows, {}, None, losses)).splitlines()
    header, *table = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:] if "---" not in line)
    assert [line[0] for line in table] == ["across the three", "kivi", "quarot", "turboquant"]
    kivi = dict(zip(header, table[1], strict=True))
    one, other = (losses[f"kivi at 2.5 code bits, {s}"] for s in ("attention-output", "loss-projected"))
    mean, stderr = paired_difference(one, other)
    assert kivi["attention-output minus loss-projected"] == f"{mean:+.4f} ± {stderr:.4f}" and mean < 0
    assert kivi["attention-output"] == f"{math.exp(one.mean()):.2f}"
