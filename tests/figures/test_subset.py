"""A few of the figures, on the real model and text."""

from __future__ import annotations

import pytest

from figures import Maker, make_subset, measure_reference_maps
from inputs import model_folder, reference_results, shared_folder
from ratequant.evaluate.status import Status
from ratequant.services import Services


@pytest.fixture(scope="module")
def inputs_present():
    if not shared_folder().is_dir():
        pytest.skip(f"no reference data at {shared_folder()} (RATEQUANT_SHARED)")
    if not (model_folder() / ".complete").exists():
        pytest.skip(f"no model at {model_folder()}; deploy/local/setup makes it")


@pytest.fixture(scope="module")
def rows(inputs_present, tmp_path_factory) -> dict[str, dict]:
    """The subset's rows by strategy."""
    texts = tmp_path_factory.mktemp("figures")
    with Services(model_folder().parent) as services:
        figures = make_subset(Maker(services, texts, Status()))
    return {row["strategy"]: row for row in figures.evaluations["code"].rows}


def test_fp32_is_the_references(rows):
    assert rows["fp32"]["tokens"] == 3066
    assert rows["fp32"]["perplexity"] == pytest.approx(24.40, abs=0.02)


def test_loss_projected_beats_uniform_beyond_noise_with_kivi_at_two_and_a_half_bits(rows):
    row = rows["loss-projected"]
    assert row["nll_diff_to_uniform"] + 2 * row["nll_diff_stderr"] < 0
    # The design's figures with sinks and window: 25.69 and 24.88.
    assert rows["uniform"]["perplexity"] == pytest.approx(25.69, abs=0.4)
    assert row["perplexity"] == pytest.approx(24.88, abs=0.3)


def test_the_references_map_costs_what_the_reference_says(inputs_present):
    (result,) = [
        r for r in reference_results() if (r.quantizer, r.code_bits, r.strategy) == ("kivi", 3.0, "loss-projected")
    ]
    (row,) = measure_reference_maps([result], Status())
    # Scales are fp16 here and fp32 there.
    assert row["measured"] == pytest.approx(result.perplexity, rel=0.01)
