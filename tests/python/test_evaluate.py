"""`python -m ratequant evaluate` and its parts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from ratequant.__main__ import main
from ratequant.cache import RateQuantCache
from ratequant.evaluate import Bundle, EvaluateOptions, evaluate
from ratequant.evaluate.configurations import Configuration, configurations
from ratequant.evaluate.paired import BLOCK_TOKENS, paired_difference
from ratequant.evaluate.perplexity import streaming_losses
from ratequant.evaluate.status import Status
from ratequant.services import Services
from tiny_models import make_model

ROW_KEYS = [
    "model", "text", "quantizer", "strategy", "code_bits", "effective_bits", "bytes_per_token", "tokens", "perplexity",
    "nll_diff_to_uniform", "nll_diff_stderr",
]  # fmt: skip


# Options


@pytest.fixture
def make_options(tiny_model, tiny_text):
    def make(**values) -> EvaluateOptions:
        return EvaluateOptions(str(tiny_model), str(tiny_text), str(tiny_text), **({"code_bits": (3,)} | values))

    return make


def test_options_are_brought_to_canonical_form(make_options, tiny_model):
    options = make_options(quantizers=("turboquant:seed=0", "rtn", "turboquant"), code_bits=(3, 2.5, 3.0), tokens=3000)
    assert options.quantizers == ("turboquant", "rtn")
    assert options.code_bits == (2.5, 3.0)
    assert options.model_name == f"models/{tiny_model.name}"
    assert options.sequences == 6


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model": "nowhere"}, "'nowhere' isn't a Hugging Face model folder"),
        ({"quantizers": ("gptq",)}, "unknown quantizer 'gptq'"),
        ({"quantizers": ()}, "no quantizers"),
        ({"strategies": ("best",)}, "unknown strategy 'best'; supported: fp32, uniform"),
        ({"code_bits": ()}, "no budget"),
        ({"code_bits": (0.5,)}, "0.5 code bits"),
        ({"code_bits": (17,)}, "17 code bits"),
        ({"effective_bits": (0,)}, "0 effective bits"),
        ({"effective_bits": (math.nan,)}, "nan effective bits"),
        ({"tokens": 0}, "tokens 0"),
        ({"seq_len": 1}, "seq-len 1"),
        ({"sinks": -1}, "sinks -1"),
        ({"window": -1}, "window -1"),
        ({"calibration_sequence_length": 100}, "100 isn't a multiple of 32"),
        ({"model_name": "a b"}, "isn't a model id"),
        ({"worker_endpoint": "127.0.0.1:1"}, "worker endpoint needs"),
        ({"endpoint": "127.0.0.1:1", "data_dir": "x"}, "data folder"),
    ],
)
def test_a_bad_option_is_named(tiny_model, tiny_text, values, named):
    arguments = {"model": str(tiny_model), "calibrate_text": str(tiny_text), "eval_text": str(tiny_text), "code_bits": (3,)}
    with pytest.raises(ValueError, match=named):
        EvaluateOptions(**(arguments | values))


def test_every_budget_gets_uniform_and_the_mix_has_no_paper(make_options):
    options = make_options(
        quantizers=("rtn", "kivi"), code_bits=(2.5,), effective_bits=(3.0,), strategies=("paper", "loss-projected")
    )
    wanted = [(c.quantizer, c.strategy, c.budget_kind) for c in configurations(options)]
    for quantizer in ("rtn", "kivi"):
        for kind in ("code_bits", "effective_bits"):
            for strategy in ("uniform", "paper", "loss-projected"):
                assert (quantizer, strategy, kind) in wanted
    assert [w for w in wanted if w[0] == "any"] == [
        ("any", "uniform", "effective_bits"),
        ("any", "loss-projected", "effective_bits"),
    ]


# Differences


def test_the_mean_of_a_difference_and_its_error_come_from_blocks():
    generator = np.random.default_rng(1)
    blocks = 500
    # Every block has its own offset: tokens are far from independent.
    offsets = np.repeat(generator.normal(0.1, 0.2, blocks), BLOCK_TOKENS)[None]
    others = generator.normal(3.0, 1.0, offsets.shape)
    mean, stderr = paired_difference(others + offsets, others)
    assert mean == pytest.approx(offsets.mean())
    assert stderr == pytest.approx(0.2 / math.sqrt(blocks), rel=0.15)


def test_blocks_do_not_cross_sequences_and_the_last_may_be_short():
    losses = np.zeros((2, BLOCK_TOKENS + 1))
    losses[0, -1], losses[1, 0] = 1.0, -1.0  # neighbours only when rows are joined
    mean, stderr = paired_difference(losses, np.zeros_like(losses))
    assert mean == 0.0
    # Four blocks with sums 0, 1, -1, 0.
    assert stderr == pytest.approx(math.sqrt(4 / 3 * 2) / losses.size)


def test_an_equal_shift_of_all_tokens_has_no_error():
    losses = np.random.default_rng(0).normal(size=(3, 200))
    mean, stderr = paired_difference(losses + 0.5, losses)
    assert (mean, stderr) == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-12))


def test_one_block_has_no_error_and_other_tokens_no_difference():
    assert paired_difference(np.ones((1, 5)), np.zeros((1, 5))) == (1.0, None)
    with pytest.raises(ValueError, match="different tokens"):
        paired_difference(np.ones((1, 5)), np.ones((1, 6)))


# Streaming


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_chunks_give_the_losses_of_one_forward_pass(kind):
    model = make_model(kind).eval()
    tokens = torch.randint(3, 300, (3, 101), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model(tokens).logits[:, :-1].transpose(1, 2)
        want = torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none").numpy()
    for batch_size in (1, 2, 3):
        done = []
        got = streaming_losses(model, tokens, lambda n: DynamicCache(config=model.config), batch_size, done.append)
        np.testing.assert_allclose(got, want, atol=2e-5)
        assert sum(done) == 3 * 100


def test_what_a_map_packs_changes_the_losses_after_the_window_only():
    model = make_model("llama").eval()
    tokens = torch.randint(3, 300, (2, 129), generator=torch.Generator().manual_seed(0))
    fp = streaming_losses(model, tokens, lambda n: DynamicCache(config=model.config), 2)

    def losses(width: int) -> np.ndarray:
        bit_map = {
            "geometry": {"layers": 3, "kv_heads": 2, "head_dim": 8}, "quantizers": ["rtn"], "quantizer_index": [0] * 12,
            "width": [width] * 12, "sink_tokens": 4, "window": 32,
        }  # fmt: skip
        return streaming_losses(model, tokens, lambda n: RateQuantCache(bit_map, model.config), 2)

    eight, two = losses(8), losses(2)
    # The first chunk fills the window and reads nothing that is packed, only fp16.
    np.testing.assert_array_equal(two[:, :32], eight[:, :32])
    assert np.abs(two[:, :32] - fp[:, :32]).max() < 5e-3
    assert np.abs(two[:, 64:] - fp[:, 64:]).max() > 0.05
    assert np.abs(eight[:, 64:] - fp[:, 64:]).mean() < 0.1 * np.abs(two[:, 64:] - fp[:, 64:]).mean()


# The command


def run_command(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ratequant", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def common(tiny_model, tiny_text, tmp_path_factory) -> list[str]:
    """Flags of a small evaluation, its services' data kept between runs."""
    return [
        "evaluate", "--model", tiny_model, "--calibrate-text", tiny_text, "--eval-text", tiny_text, "--tokens", "400",
        "--seq-len", "128", "--calibration-sequences", "4", "--calibration-sequence-length", "64",
        "--quantizers", "rtn", "turboquant:seed=3", "--data-dir", tmp_path_factory.mktemp("services"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(common, tmp_path_factory):
    """(finished process, rows, bundle) of one evaluation."""
    folder = tmp_path_factory.mktemp("out")
    process = run_command(
        *common, "--code-bits", "2.5,8", "--effective-bits", "1", "6", "--strategies", "k-ceil-v-floor", "paper",
        "measured", "loss-projected", "--json", folder / "rows.json", "--bundle", folder / "bundle.json",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process, json.loads((folder / "rows.json").read_text()), Bundle.read(folder / "bundle.json")


def test_rows_have_exactly_the_fields_that_scripts_rely_on(evaluated):
    _, rows, _ = evaluated
    assert all(list(row)[: len(ROW_KEYS)] == ROW_KEYS for row in rows)
    assert {row["tokens"] for row in rows} == {4 * 127}
    assert {row["text"] for row in rows} == {"text.txt"}


def test_every_asked_combination_has_its_row(evaluated):
    _, rows, _ = evaluated
    found = {(row["quantizer"], row["strategy"], row["budget_kind"], row["budget"]) for row in rows}
    assert len(found) == len(rows)
    strategies = ("uniform", "k-ceil-v-floor", "paper", "measured", "loss-projected")
    want = {("none", "fp32", "none", None)}
    for quantizer in ("rtn", "turboquant:seed=3"):
        want |= {(quantizer, s, "code_bits", bits) for s in strategies for bits in (2.5, 8.0)}
        want |= {(quantizer, s, "effective_bits", 6.0) for s in strategies}
    want |= {("any", s, "effective_bits", 6.0) for s in strategies if s != "paper"}
    assert found == want


def test_figures_of_a_row_agree_with_each_other(evaluated):
    _, rows, bundle = evaluated
    fp32 = rows[0]
    uniform = {(r["quantizer"], r["budget_kind"], r["budget"]): r for r in rows if r["strategy"] == "uniform"}
    for row in rows[1:]:
        assert row["perplexity"] == pytest.approx(math.exp(row["nll"]))
        reference = uniform[row["quantizer"], row["budget_kind"], row["budget"]]
        assert row["nll_diff_to_uniform"] == pytest.approx(row["nll"] - reference["nll"], abs=1e-9)
        assert row["nll_diff_to_fp"] == pytest.approx(row["nll"] - fp32["nll"], abs=1e-9)
        assert row["nll_diff_stderr"] >= 0.0
        bit_map = bundle.bit_maps[row["bit_map"]]
        assert bit_map.calibration == bundle.calibration.name == row["calibration"]
        assert (row["code_bits"], row["bytes_per_token"]) == (bit_map.code_bits, bit_map.bytes_per_token)
        assert row["effective_bits"] <= 6.0 or row["budget_kind"] == "code_bits"
        assert (bit_map.cache.sink_tokens, bit_map.cache.window) == (4, 32)
    assert fp32["bytes_per_token"] == 3 * 2 * 2 * 8 * 4
    assert fp32["nll_diff_to_uniform"] is None


def test_eight_bits_are_nearer_to_fp32_than_two_and_a_half(evaluated):
    _, rows, _ = evaluated
    for quantizer in ("rtn", "turboquant:seed=3"):
        distance = {
            row["budget"]: abs(row["nll_diff_to_fp"])
            for row in rows
            if row["quantizer"] == quantizer and row["budget_kind"] == "code_bits" and row["strategy"] == "uniform"
        }
        assert distance[8.0] < 1e-3 and distance[8.0] < distance[2.5]


def test_the_bundle_holds_tables_maps_and_curves(evaluated):
    _, rows, bundle = evaluated
    assert len(bundle.calibration.tables) == 2 and bundle.calibration.tables[0].c2
    assert set(bundle.bit_maps) == {row["bit_map"] for row in rows} - {""}
    assert set(bundle.curves) == {"any", "rtn", "turboquant:seed=3"}
    assert all(curve.points for curve in bundle.curves.values())


def test_the_table_is_on_stdout_and_progress_on_stderr(evaluated):
    process, rows, _ = evaluated
    assert f"{rows[0]['perplexity']:.2f}" in process.stdout
    assert process.stdout.count("loss-projected") == sum(row["strategy"] == "loss-projected" for row in rows)
    assert "calibrating" in process.stderr and "calibrating" not in process.stdout
    assert "\r" not in process.stderr  # a bar is for terminals


def test_a_budget_that_cannot_be_kept_is_told_once_and_has_no_rows(evaluated):
    process, rows, _ = evaluated
    for quantizer in ("any", "rtn", "turboquant:seed=3"):
        assert process.stderr.count(f"no map for {quantizer} at 1 effective bits") == 1
    assert all(row["budget"] != 1.0 for row in rows)


def test_the_report_is_the_same_from_the_allocator_and_from_the_bundle(evaluated, common, tiny_model, tmp_path):
    _, rows, bundle = evaluated
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    bundle.write(tmp_path / "bundle.json")
    command = ["report", "--json", str(tmp_path / "rows.json")]
    assert main([*command, "--bundle", str(tmp_path / "bundle.json"), "--out", str(tmp_path / "a.html")]) == 0
    with Services(tiny_model.parent, common[common.index("--data-dir") + 1]) as services:
        assert main([*command, "--endpoint", services.endpoint, "--out", str(tmp_path / "b.html")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert page == (tmp_path / "b.html").read_text()
    assert 'id="bit-map"' in page and 'id="rate-distortion"' in page


def test_a_stored_calibration_that_fits_is_used_again(evaluated, common, tmp_path):
    first = evaluated[1]
    process = run_command(*common, "--code-bits", "2.5", "--json", tmp_path / "rows.json")
    assert process.returncode == 0, process.stderr
    assert "calibrating" not in process.stderr
    by_map = {row["bit_map"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    again = [row for row in first if row["bit_map"] in by_map and row["budget_kind"] == "code_bits"]
    assert len(again) == 8
    for row in again:
        assert by_map[row["bit_map"]]["perplexity"] == pytest.approx(row["perplexity"], rel=1e-6)


def test_without_sinks_and_window_everything_is_packed(evaluated, common, tmp_path, capsys):
    words = [
        *common, "--sinks", "0", "--window", "0", "--code-bits", "2.5", "--strategies", "uniform",
        "--json", tmp_path / "rows.json", "--bundle", tmp_path / "bundle.json",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    assert "calibrating" in capsys.readouterr().err  # the stored one leaves sinks out
    bundle = Bundle.read(tmp_path / "bundle.json")
    assert bundle.calibration.capture.sink_tokens == 0
    for bit_map in bundle.bit_maps.values():
        assert bit_map.cache.HasField("window") and bit_map.cache.window == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    with_window = {row["quantizer"]: row for row in evaluated[1] if row["strategy"] == "uniform" and row["budget"] == 2.5}
    for row in rows[1:]:
        assert row["bytes_per_token"] < with_window[row["quantizer"]]["bytes_per_token"]


def test_bytes_are_those_of_the_page_that_was_asked_for(common, tmp_path):
    context = 1000
    words = [
        *common, "--quantizers", "rtn", "kivi:group_size=8", "--page-tokens", "64", "--effective-bits", "9",
        "--strategies", "loss-projected", "--context-tokens", context, "--json", tmp_path / "rows.json",
        "--bundle", tmp_path / "bundle.json",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    bundle = Bundle.read(tmp_path / "bundle.json")
    assert {table.page_tokens for table in bundle.calibration.tables} == {64}
    for bit_map in bundle.bit_maps.values():
        cache = RateQuantCache(bit_map)
        assert cache.format.page_tokens == 64
        assert cache.sequence_bytes(context) == round(bit_map.bytes_per_token * context)


def test_means_are_in_the_maps_that_are_measured(common, tmp_path):
    words = [
        *common, "--quantizers", "turboquant", "--subtract-means", "--effective-bits", "4", "--strategies", "loss-projected",
        "--json", tmp_path / "rows.json", "--bundle", tmp_path / "bundle.json",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    bundle = Bundle.read(tmp_path / "bundle.json")
    assert bundle.calibration.capture.means_subtracted
    geometry = bundle.calibration.geometry
    assert len(bundle.calibration.means) == 2 * geometry.layers * geometry.kv_heads * geometry.head_dim
    for bit_map in bundle.bit_maps.values():
        assert list(bit_map.means) == list(bundle.calibration.means)


def test_an_evaluation_that_was_cut_short_goes_on_where_it_was(evaluated, common, make_options):
    class CutShort(dict):
        def __setitem__(self, key, value):
            if len(self) == 2:
                raise KeyboardInterrupt
            super().__setitem__(key, value)

    options = make_options(
        quantizers=("rtn", "turboquant:seed=3"), code_bits=(2.5,), tokens=400, seq_len=128, calibration_sequences=4,
        calibration_sequence_length=64, data_dir=str(common[common.index("--data-dir") + 1]),
    )  # fmt: skip
    wanted = [Configuration("rtn", s, "code_bits", 2.5) for s in ("uniform", "k-ceil-v-floor", "loss-projected")]
    begun = CutShort()
    with pytest.raises(KeyboardInterrupt):
        evaluate(options, wanted=wanted, known=begun)
    known = dict(begun)
    result = evaluate(options, wanted=wanted, known=known)
    assert len(known) > 2 and all(known[key] is losses for key, losses in begun.items())
    assert [row["strategy"] for row in result.rows] == ["fp32", *(c.strategy for c in wanted)]
    whole = {row["bit_map"]: row for row in evaluated[1]}
    for row in result.rows:
        assert row["perplexity"] == pytest.approx(whole[row["bit_map"]]["perplexity"], rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--page-tokens", "48"], "48 tokens in a page; use 16, 32, 64 or 128"),
        (["--eval-text", "{empty}"], "is empty"),
        (["--calibrate-text", "{empty}"], "is empty"),
        (["--eval-text", "{short}"], "the evaluation text '{short}' can't be used: the text has"),
        (["--calibrate-text", "{short}"], "the calibration text '{short}' can't be used: the text has"),
        (["--eval-text", "{binary}"], "is not UTF-8"),
        (["--eval-text", "{missing}"], "No such file"),
        (["--model", "{missing}"], "isn't a Hugging Face model folder"),
        (["--quantizers", "gptq"], "unknown quantizer 'gptq'; supported: rtn, kivi, quarot, turboquant, tcq"),
        (["--code-bits", "0.5"], "0.5 code bits"),
        (["--code-bits", "1", "--quantizers", "rtn", "--strategies", "uniform"], "BUDGET_BELOW_MINIMUM"),
        (["--json", "{missing}/rows.json"], "can't write"),
        (["--endpoint", "127.0.0.1:1"], "127.0.0.1:1"),
        (["--quantizers", "kivi"], "kivi"),  # head_dim 8 has no groups of 32 channels
    ],
)
def test_bad_input_ends_with_one_clear_message(common, tmp_path, capsys, flags, message):
    places = {name: str(tmp_path / name) for name in ("empty", "short", "binary", "missing")}
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "short").write_text("Not enough.")
    (tmp_path / "binary").write_bytes(b"\xff\xfe text")
    words = [flag.format(**places) for flag in flags]
    # Later flags win over earlier ones; an endpoint doesn't go with a data folder.
    words += ["--data-dir", ""] if "--endpoint" in flags else []
    budget = [] if "--code-bits" in flags else ["--code-bits", "3"]
    out = [] if "--json" in flags else ["--json", str(tmp_path / "rows.json")]
    assert main([str(word) for word in (*common, *budget, *out, *words)]) == 1
    captured = capsys.readouterr()
    assert message.format(**places) in captured.err.splitlines()[-1]
    assert not captured.out
    assert not (tmp_path / "rows.json").exists()


def test_a_truncated_model_is_told(common, tiny_model, tmp_path, capsys):
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in tiny_model.iterdir():
        data = file.read_bytes()
        (folder / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    words = [*common, "--model", folder, "--code-bits", "3", "--json", tmp_path / "rows.json"]
    assert main([str(word) for word in words]) == 1
    assert "MODEL_UNREADABLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"), [(["--bits", "3"], "unrecognized arguments: --bits"), (["--code-bits", "x"], "'x' isn't a number")]
)
def test_a_bad_flag_is_a_usage_error(capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--model", "m", "--calibrate-text", "a", "--eval-text", "b", "--json", "c", *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", [[], ["evaluate"], ["report"]])
def test_help_shows_examples(capsys, verb):
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out and "python -m ratequant" in out


# Progress


class Terminal:
    """A stream that says whether it is a terminal and keeps what it gets."""

    def __init__(self, terminal: bool):
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_terminal_gets_a_bar_that_is_removed():
    stream = Terminal(True)
    status = Status(stream)
    status.phase("measuring", total=10)
    assert "[" in stream.text and "0%" in stream.text
    status.clear()
    assert stream.text.endswith("\r\033[K")


def test_other_streams_get_a_line_a_phase():
    stream = Terminal(False)
    status = Status(stream)
    status.phase("measuring", total=10)
    for _ in range(10):
        status.advance(1)
    status.note("done")
    assert stream.text == "measuring\ndone\n"
