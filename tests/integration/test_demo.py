"""The demo as a user runs it: its outputs, its exit status, and that nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from tiny_models import TEXT, save_tiny_model  # noqa: E402

ROW_KEYS = {
    "model", "text", "quantizer", "strategy", "code_bits", "effective_bits", "bytes_per_token", "tokens",
    "perplexity", "nll_diff_to_uniform", "nll_diff_stderr",
}  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small model and texts, so that the steps are what is tested and not the model."""
    folder = tmp_path_factory.mktemp("demo")
    model = save_tiny_model(folder / "tiny", head_dim=32)
    (folder / "calibrate.txt").write_text(TEXT * 4, encoding="utf-8")
    (folder / "evaluate.txt").write_text(TEXT[::-1], encoding="utf-8")
    return [
        "--model", str(model), "--text", str(folder / "calibrate.txt"),
        "--eval-text", str(folder / "evaluate.txt"), "--tokens", "1000", "--quick", "--out", str(folder / "out"),
    ]  # fmt: skip


def start(arguments: list[str], **options) -> subprocess.Popen:
    """The demo in a process group of its own, like a shell's foreground job. A shell's background jobs ignore SIGINT,
    and what they start does, too."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", str(ROOT / "deploy/local/demo"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **options,
    )  # fmt: skip


def left_running(out: str) -> list[str]:
    """Command lines of processes that name the demo's output folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if out in command:
                found.append(command)
    return found


def test_the_demo_writes_its_outputs_and_leaves_nothing_running(arguments: list[str]) -> None:
    out = Path(arguments[-1])
    demo = start(arguments)
    output, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, output
    rows = json.loads((out / "figures.json").read_text())
    assert rows and all(ROW_KEYS <= row.keys() for row in rows)
    assert {"fp32", "uniform", "loss-projected"} <= {row["strategy"] for row in rows}
    assert all(row["perplexity"] > 1 for row in rows)
    assert "<svg" in (out / "report.html").read_text()
    assert left_running(str(out)) == []


def test_interrupting_the_demo_stops_the_services(arguments: list[str]) -> None:
    out = Path(arguments[-1])
    (out / "ratequant-worker.port").unlink(missing_ok=True)
    demo = start(arguments)
    deadline = time.monotonic() + 120
    while not (out / "ratequant-worker.port").exists():
        assert demo.poll() is None and time.monotonic() < deadline, "the worker didn't start"
        time.sleep(0.05)
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert left_running(str(out)) == []


def test_a_failing_step_fails_the_demo(arguments: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    changed = [str(empty) if before == "--text" else value for before, value in zip(["", *arguments], arguments)]
    demo = start(changed)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode not in (0, None)
    assert "empty" in output
    assert left_running(arguments[-1]) == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [(["--tokens", "many"], "many"), (["--model", "/no/such/model"], "/no/such/model"), (["--nonsense"], "--nonsense")],
)
def test_a_wrong_option_is_named(wrong: list[str], named: str) -> None:
    demo = start(wrong)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert named in output
