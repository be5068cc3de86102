"""What an evaluation measures."""

from __future__ import annotations

import dataclasses
import pathlib

from ratequant.names import model_name
from ratequant.quantizer import QUANTIZER_IDS, parse_quantizer, quantizer_name

# Strategy of a row -> (objective, strategy) of the query that makes its map.
STRATEGIES = {
    "uniform": ("loss-projected", "uniform"),
    "k-ceil-v-floor": ("loss-projected", "k-ceil-v-floor"),
    "paper": ("paper", "allocated"),
    "measured": ("measured", "allocated"),
    "loss-projected": ("loss-projected", "allocated"),
    "attention-output": ("attention-output", "allocated"),
}
DEFAULT_STRATEGIES = ("uniform", "k-ceil-v-floor", "paper", "loss-projected")
# Always measured: what every row is compared with.
BASELINE = "fp32"


@dataclasses.dataclass
class EvaluateOptions:
    """Options of `evaluate`; the same as the command's flags.

    Attributes:
      model: folder of a Hugging Face causal language model.
      calibrate_text, eval_text: UTF-8 text files.
      tokens: score at least so many tokens.
      seq_len: tokens of one evaluation sequence; each scores seq_len - 1.
      quantizers: quantizers to compare, and what "any" may mix.
      code_bits, effective_bits: budgets.
      strategies: names from STRATEGIES; uniform is always measured.
      sinks: first tokens of a sequence kept in fp16.
      window: newest tokens kept in fp16.
      context_tokens: context length at which bytes are counted.
      calibration_sequences, calibration_sequence_length: size of the
        calibration set.
      page_tokens: tokens in a page of the cache: 16, 32, 64 or 128.
      subtract_means: calibrate with each channel's mean taken off K and V.
      batch_size: sequences that run at once; 0 picks.
      model_name: id the calibration is stored under; empty means the folder's.
      endpoint, worker_endpoint: running services; without `endpoint` both are
        started for the evaluation.
      data_dir: folder the started services keep their data in; without it a
        temporary one is used.
      record: attach what was measured to the bit maps in the allocator.
    """

    model: str
    calibrate_text: str
    eval_text: str
    tokens: int = 3000
    seq_len: int = 512
    quantizers: tuple[str, ...] = QUANTIZER_IDS
    code_bits: tuple[float, ...] = ()
    effective_bits: tuple[float, ...] = ()
    strategies: tuple[str, ...] = DEFAULT_STRATEGIES
    sinks: int = 4
    window: int = 32
    context_tokens: int = 4096
    calibration_sequences: int = 16
    calibration_sequence_length: int = 512
    page_tokens: int = 32
    subtract_means: bool = False
    batch_size: int = 0
    model_name: str = ""
    endpoint: str = ""
    worker_endpoint: str = ""
    data_dir: str = ""
    record: bool = False

    def __post_init__(self) -> None:
        """Brings values to canonical form.

        Raises:
          ValueError: names a value that isn't supported and what is.
        """
        path = pathlib.Path(self.model)
        if not (path / "config.json").is_file():
            raise ValueError(f"'{self.model}' isn't a Hugging Face model folder: it has no config.json")
        self.model = str(path.resolve())
        self.model_name = model_name(self.model_name or pathlib.Path(self.model).name)
        self.quantizers = _unique(quantizer_name(parse_quantizer(q)) for q in self.quantizers)
        if not self.quantizers:
            raise ValueError(f"no quantizers given; supported: {', '.join(QUANTIZER_IDS)}")
        self.strategies = _unique(self.strategies)
        for strategy in self.strategies:
            if strategy not in STRATEGIES and strategy != BASELINE:
                supported = ", ".join((BASELINE, *STRATEGIES))
                raise ValueError(f"unknown strategy '{strategy}'; supported: {supported}")
        self.code_bits = _budgets("code bits", self.code_bits, 1.0)
        self.effective_bits = _budgets("effective bits", self.effective_bits, 0.0)
        if not self.code_bits and not self.effective_bits:
            raise ValueError("no budget given: set code bits or effective bits")
        for name, smallest in _SMALLEST.items():
            value = getattr(self, name)
            if value < smallest:
                raise ValueError(f"{name.replace('_', '-')} {value} isn't supported; it is at least {smallest}")
        if self.calibration_sequence_length % 32:
            raise ValueError(
                f"calibration-sequence-length {self.calibration_sequence_length} isn't a multiple of 32"
            )
        if self.worker_endpoint and not self.endpoint:
            raise ValueError("a worker endpoint needs the allocator's endpoint beside it")
        if self.endpoint and self.data_dir:
            raise ValueError("a data folder is for services that evaluate starts itself; an endpoint is given")
        if self.record and not (self.endpoint or self.data_dir):
            raise ValueError("record needs an endpoint or a data folder: services without one keep nothing")

    @property
    def attention_output(self) -> bool:
        """Whether a strategy needs a calibration with d2."""
        return any(STRATEGIES.get(strategy, ("",))[0] == "attention-output" for strategy in self.strategies)

    @property
    def sequences(self) -> int:
        """Evaluation sequences needed to score `tokens`."""
        return -(-self.tokens // (self.seq_len - 1))


_SMALLEST = {
    "tokens": 1,
    "seq_len": 2,
    "sinks": 0,
    "window": 0,
    "context_tokens": 1,
    "calibration_sequences": 1,
    "calibration_sequence_length": 32,
    "batch_size": 0,
}


def _unique(values) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _budgets(what: str, values, smallest: float) -> tuple[float, ...]:
    budgets = tuple(sorted({float(value) for value in values}))
    for value in budgets:
        if not (smallest <= value <= 16.0) or value == 0.0:
            raise ValueError(f"{value:g} {what} isn't supported; a budget is from {smallest or 'above 0'} to 16")
    return budgets
