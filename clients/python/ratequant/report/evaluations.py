"""Recorded evaluations as rows, so that they are drawn as those are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratequant.evaluate.map_source import ANY
from ratequant.evaluate.options import BASELINE
from ratequant.quantizer import quantizer_name
from ratequant.v1 import bit_map_pb2, evaluation_pb2


def rows_of_evaluations(
    evaluations: Sequence[evaluation_pb2.Evaluation], bit_maps: Sequence[bit_map_pb2.BitMap]
) -> list[dict]:
    """Rows of the evaluations whose maps are given, fp32 first. The newest
    evaluation of a map counts.

    Raises:
      ValueError: none of the maps was evaluated, or they were on different texts.
    """
    by_name = {bit_map.name: bit_map for bit_map in bit_maps}
    newest: dict[str, evaluation_pb2.Evaluation] = {}
    for evaluation in sorted(evaluations, key=lambda e: (e.create_time.seconds, e.create_time.nanos)):
        name = evaluation.name.partition("/evaluations/")[0]
        if name in by_name:
            newest[name] = evaluation
    if not newest:
        raise ValueError(
            f"none of the {len(evaluations)} recorded evaluations is of a bit map among the files; "
            "name the maps' files too"
        )
    texts = {evaluation.text_digest: evaluation.text for evaluation in newest.values()}
    if len(texts) > 1:
        raise ValueError(f"evaluations on different texts ({', '.join(texts.values())}) can't be compared")
    rows = [_row(by_name[name], evaluation) for name, evaluation in newest.items()]
    return [_baseline(rows[0], next(iter(newest.values()))), *rows]


def _row(bit_map: bit_map_pb2.BitMap, evaluation: evaluation_pb2.Evaluation) -> dict:
    used = {quantizer_name(quantizer) for quantizer in bit_map.quantizers}
    kind = bit_map.budget.WhichOneof("limit") or "effective_bits"
    return {
        "model": bit_map.name.split("/")[1],
        "text": evaluation.text or "a recorded text",
        "quantizer": used.pop() if len(used) == 1 else ANY,
        "strategy": _strategy(bit_map.policy),
        "code_bits": bit_map.code_bits,
        "effective_bits": bit_map.effective_bits,
        "bytes_per_token": bit_map.bytes_per_token,
        "tokens": evaluation.tokens,
        "perplexity": evaluation.perplexity,
        "nll_diff_to_uniform": evaluation.loss_minus_uniform,
        "nll_diff_stderr": evaluation.loss_minus_uniform_stderr or None,
        "budget_kind": kind,
        "budget": getattr(bit_map.budget, kind) or bit_map.effective_bits,
        "bit_map": bit_map.name,
        "nll": math.log(evaluation.perplexity),
        "nll_diff_to_fp": evaluation.loss_minus_fp,
        "nll_diff_to_fp_stderr": evaluation.loss_minus_fp_stderr or None,
    }


def _baseline(row: dict, evaluation: evaluation_pb2.Evaluation) -> dict:
    return row | {
        "quantizer": "none",
        "strategy": BASELINE,
        "code_bits": 32.0,
        "effective_bits": 32.0,
        "bytes_per_token": 0.0,
        "perplexity": evaluation.fp_perplexity,
        "nll_diff_to_uniform": None,
        "nll_diff_stderr": None,
        "budget_kind": "none",
        "budget": None,
        "bit_map": "",
        "nll": math.log(evaluation.fp_perplexity),
        "nll_diff_to_fp": 0.0,
        "nll_diff_to_fp_stderr": 0.0,
    }


def _strategy(policy: bit_map_pb2.Policy) -> str:
    """The name rows use for a policy."""
    objective = bit_map_pb2.Policy.Objective.Name(policy.objective).lower().replace("_", "-")
    strategy = bit_map_pb2.Policy.Strategy.Name(policy.strategy).lower().replace("_", "-")
    if strategy != "allocated":
        return strategy
    return objective
