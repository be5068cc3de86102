"""Perplexity of quantized KV caches on held-out text.

`python -m ratequant evaluate` on the command line, `evaluate` from Python:

    from ratequant.evaluate import EvaluateOptions, evaluate

    result = evaluate(EvaluateOptions(
        model="build/models/SmolLM2-135M-Instruct",
        calibrate_text="calibration.txt", eval_text="held-out.txt",
        effective_bits=(2.5, 3.0)))
    for row in result.rows:
        print(row["quantizer"], row["strategy"], row["perplexity"])
"""

from ratequant.evaluate.bundle import Bundle
from ratequant.evaluate.options import EvaluateOptions

__all__ = ["Bundle", "EvaluateOptions", "Evaluation", "evaluate"]


def __getattr__(name: str):
    # torch takes seconds to import; the report and --help don't need it.
    if name in ("Evaluation", "evaluate"):
        from ratequant.evaluate import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
