"""The rows of the table: what must be fast, against what, and the goal."""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table. `needs` says what a machine must have for it, or ""."""

    name: str
    against: str
    goal: str
    needs: str = ""


ROWS = (
    Row("CUDA decode attention, mixed cache", "bytes floor at measured copy bandwidth", ">= 0.8x at 32k tokens", "gpu"),
    Row("CUDA decode attention, mixed map", "uniform bits of the same bytes", "<= 1.02x", "gpu"),
    Row("CUDA decode attention, 4 bits", "fp16 decode attention", ">= 3x faster at 32k tokens", "gpu"),
    Row("CUDA append and dequantize", "copy bandwidth", ">= 0.85x", "gpu"),
    Row("CUDA distortion sweep", "model forward and backward", "<= 0.05x; 8B model < 1.6 s", "gpu"),
    Row("CPU append and dequantize", "memcpy of the same output", ">= 0.5x at 4 bits, >= 0.3x at 3, 5, 6"),
    Row("CPU decode attention, 4 bits", "torch SDPA on the fp32 cache", ">= 2x faster at 32k tokens"),
    Row("CPU mixed map", "uniform bits of the same bytes", "<= 1.03x"),
    Row("CPU sweep", "the same sweep in PyTorch", ">= 10x faster"),
    Row("CPU calibration of SmolLM2-135M", "model forward and backward alone", "<= 1.3x"),
    Row("transformers decode", "quanto and hqq at 4 bits, DynamicCache in fp32", "faster than both at 2k, 8k, 32k tokens"),
    Row("transformers perplexity", "quanto and hqq at equal effective bits", "a smaller loss at 2.5 and 4.5"),
    Row("transformers greedy, 4 bits", "the fp32 cache's tokens", "the first 64 tokens of >= 90% of 50 prompts"),
    Row("cached GetBitMap", "empty RPC with as large an answer", ">= 0.8x throughput, p99 <= 1.5x"),
    Row("first GetBitMap of a budget", "576 groups, solved and stored", "<= 5 ms, no cached reader waits"),
    Row("solver", "exact integer optimum", "<= 1 ms for 1,152 groups; N log N to 100 k"),
    Row("rate-distortion curve", "1,152 groups x 4 quantizers", "every breakpoint in one answer"),
    Row("allocator memory", "10,000 models x 20 budgets", "<= 256 MiB resident"),
    Row("allocator restart", "10,000 models x 20 budgets", "SERVING in <= 2 s"),
    Row("client start without allocator", "last good map from disk", "<= 50 ms"),
    Row("build from nothing", "2 cores, without CUDA", "<= 6 min"),
)
