"""The frontier's table and picture, and the folder that lets it go on."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from frontier import ALL, CENTRED_ALONE, CENTRED_MIX, GOALS, MIX, frontier_picture, frontier_table
from loss_folder import LossFolder
from ratequant.evaluate import Evaluation
from ratequant.evaluate.paired import paired_difference

BUDGETS = (2.0, 3.0)


@pytest.fixture
def found() -> Evaluation:
    """Losses of every series: the worse the earlier it is named, rtn beyond use, and
    no kivi at 2 bits."""
    generator = np.random.default_rng(1)
    losses = {"": generator.gamma(2.0, 1.5, (6, 511))}
    rows = [{"quantizer": "none", "strategy": "fp32", "budget_kind": "none", "budget": None, "bit_map": ""}]
    for budget in BUDGETS:
        for place, quantizer in enumerate((*ALL, CENTRED_ALONE, MIX, CENTRED_MIX)):
            for strategy in ("uniform", "loss-projected"):
                if (quantizer, budget) == ("kivi", 2.0) or (strategy == "uniform" and "across" in quantizer):
                    continue
                name = f"{quantizer} {strategy} {budget}"
                shift = (0.3 if strategy == "uniform" else 0.2) - 0.02 * place + (2.0 if quantizer == "rtn" else 0.0)
                losses[name] = losses[""] + generator.normal(shift / budget, 0.1, losses[""].shape)
                rows.append(
                    {"quantizer": quantizer, "strategy": strategy, "budget_kind": "effective_bits", "budget": budget, "bit_map": name}
                )
    for row in rows:
        mean, stderr = paired_difference(losses[row["bit_map"]], losses[""])
        row |= {"effective_bits": row["budget"] or 32.0, "perplexity": math.exp(losses[row["bit_map"]].mean()),
                "tokens": 3066, "nll_diff_to_fp": mean, "nll_diff_to_fp_stderr": stderr}  # fmt: skip
    return Evaluation(rows, {}, None, losses)


def test_the_table_compares_the_mix_with_the_best_single_quantizer(found):
    lines = frontier_table(found, BUDGETS).splitlines()
    header, two, three = ([cell.strip() for cell in line.strip("|").split("|")] for line in (lines[2], *lines[4:]))
    at_two, at_three = dict(zip(header, two, strict=True)), dict(zip(header, three, strict=True))
    assert at_two["kivi"] == "–" and at_three["kivi"] != "–"
    mean, stderr = paired_difference(
        found.losses[f"{MIX} loss-projected 3.0"], found.losses["tcq loss-projected 3.0"]
    )
    assert at_three["across all minus the best alone"] == f"{mean:+.4f} ± {stderr:.4f}"
    uniform, allocated = (math.exp(found.losses[f"quarot {s} 2.0"].mean()) for s in ("uniform", "loss-projected"))
    assert at_two["quarot"] == f"{allocated:.2f} ({uniform:.2f})"


def test_the_picture_is_an_svg_of_its_own_with_every_series_that_can_be_seen(found):
    picture = ElementTree.fromstring(frontier_picture(found.rows))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{space}svg" and picture.find(f"{space}style") is not None
    texts = [text.text for text in picture.iter(f"{space}text")]
    assert "rtn" not in texts  # more than twice fp32's perplexity
    for name in (*ALL[1:], CENTRED_ALONE, MIX, CENTRED_MIX, "loss-projected", "uniform"):
        assert name in texts
    tooltips = [title.text for title in picture.iter(f"{space}title")]
    assert sum(text.startswith(f"{MIX}, loss") for text in tooltips) == len(BUDGETS)
    goals = [text for text in tooltips if text.startswith("goal")]
    assert len(goals) == len(GOALS)
    right = float(picture.get("viewBox").split()[2])
    points = [path for path in picture.iter(f"{space}path") if "point" in path.get("class").split()]
    assert len(points) > 2 * len(BUDGETS)
    assert all(0 <= float(point.get("d")[1:].partition(",")[0]) <= right for point in points)


def test_losses_are_there_again_when_the_folder_is_opened_anew(tmp_path):
    losses = LossFolder(tmp_path / "losses")
    assert "a" not in losses
    losses["a"] = np.arange(6.0).reshape(2, 3)
    again = LossFolder(tmp_path / "losses")
    assert list(again) == ["a"] and len(again) == 1
    assert np.array_equal(again["a"], losses["a"])
    del again["a"]
    with pytest.raises(KeyError):
        losses["a"]
