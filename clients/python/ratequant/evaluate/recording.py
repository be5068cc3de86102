"""Attaches the measurements of an evaluation to the bit maps they are of."""

from __future__ import annotations

import math

import torch
import transformers

from ratequant.client import Client
from ratequant.evaluate.options import BASELINE
from ratequant.v1 import evaluation_pb2


def record(client: Client, rows: list[dict]) -> list[evaluation_pb2.Evaluation]:
    """Records every row of a bit map that was compared with uniform, and
    returns what is stored.

    Raises:
      RateQuantError: the allocator refused one, for example because it no
        longer has the map.
    """
    fp = next(row for row in rows if row["strategy"] == BASELINE)
    uniform = {_query(row): row for row in rows if row["strategy"] == "uniform"}
    return [
        client.record_evaluation(row["bit_map"], evaluation(row, uniform[_query(row)], fp))
        for row in rows
        if row["strategy"] != BASELINE and _query(row) in uniform
    ]


def evaluation(row: dict, uniform: dict, fp: dict) -> evaluation_pb2.Evaluation:
    """What a row says, beside those of uniform and of full precision."""
    return evaluation_pb2.Evaluation(
        uniform_bit_map=uniform["bit_map"],
        text_digest=row["token_digest"],
        text=row["text"],
        tokens=row["tokens"],
        fp_perplexity=math.exp(fp["nll"]),
        uniform_perplexity=math.exp(uniform["nll"]),
        perplexity=math.exp(row["nll"]),
        loss_minus_uniform=row["nll_diff_to_uniform"],
        loss_minus_uniform_stderr=row["nll_diff_stderr"] or 0.0,
        loss_minus_fp=row["nll_diff_to_fp"],
        loss_minus_fp_stderr=row["nll_diff_to_fp_stderr"] or 0.0,
        software=[f"torch {torch.__version__}", f"transformers {transformers.__version__}"],
    )


def _query(row: dict) -> tuple:
    return row["quantizer"], row["budget_kind"], row["budget"]
