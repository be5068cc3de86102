"""tests/bench/run: its table and its verdicts, on benches made up here and on the allocator's own."""

import json
import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROW = {"row": "solver", "measured": 0.5, "unit": "ms", "against": "a", "goal": "<= 1 ms", "met": True, "note": "n"}


def bench(build: pathlib.Path, name: str, lines: list[str], code: int = 0) -> None:
    """A bench that prints `lines`."""
    path = build / "bench" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    echo = "\n".join(f"echo {shlex.quote(line)}" for line in lines)
    path.write_text(f"#!/bin/sh\n{echo}\nexit {code}\n")
    path.chmod(0o755)


def run(build: pathlib.Path, *arguments: str) -> tuple[subprocess.CompletedProcess, list[dict], list[str]]:
    """Runs the script on a build folder's programs. Returns how it ended, its rows and its failures."""
    done = subprocess.run(
        [ROOT / "tests/bench/run", "--no-build", "--no-scripts", "--build", build, *arguments],
        capture_output=True,
        text=True,
    )
    path = build / "bench/results.json"
    results = json.loads(path.read_text()) if path.exists() else {"rows": [], "failures": []}
    return done, results["rows"], results["failures"]


def test_every_row_has_a_line_measured_or_with_the_reason_why_not(tmp_path):
    missed = ROW | {"row": "allocator memory", "met": False}
    bench(tmp_path, "one_bench", [json.dumps(ROW), "words that aren't a row"])
    bench(tmp_path, "two_bench", [json.dumps(missed)])
    done, rows, failures = run(tmp_path, "--only", "o_bench")
    assert (done.returncode, failures) == (0, [])
    assert "allocator memory" in done.stdout and "MISSED" in done.stdout
    assert {row["row"]: row["note"] for row in rows}["solver"] == "not measured: left out by --only"
    done, rows, failures = run(tmp_path)
    assert (done.returncode, failures) == (0, [])
    assert rows[0] == ROW and rows[1] == missed
    names = [line.split("  ")[0] for line in done.stdout.splitlines()[2:-1]]
    assert len(names) == len(set(names)) >= 16
    assert all(row["note"].startswith("not measured: ") for row in rows[2:])


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (json.dumps(ROW), 3, "odd_bench ended with 3"),
        (json.dumps(ROW | {"row": "no such row"}), 0, "odd_bench printed a row that isn't one of rows.py"),
        (json.dumps({"row": "solver"}), 0, "or lacks a field"),
    ],
)
def test_a_bench_that_fails_is_a_failure_that_is_named(tmp_path, line, code, said):
    bench(tmp_path, "odd_bench", [line], code)
    done, _, failures = run(tmp_path)
    assert done.returncode == 1
    assert said in done.stdout and len(failures) == 1


def test_no_bench_is_an_error(tmp_path):
    done, _, _ = run(tmp_path, "--only", "nothing")
    assert done.returncode == 1
    assert "no bench" in done.stderr


def test_the_allocators_benches_measure_their_rows_quickly(tmp_path):
    build = ROOT / "build"
    if not (build / "bench/allocator_bench").exists():
        pytest.skip("build/bench/allocator_bench isn't built")
    out = tmp_path / "rows.json"
    done, _, _ = run(build, "--quick", "--only", "allocator_bench", "--json", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    measured = [row for row in json.loads(out.read_text())["rows"] if row["measured"] is not None]
    assert [row["row"] for row in measured] == [
        "first GetBitMap of a budget",
        "first GetBitMap of a budget",
        "rate-distortion curve",
        "cached GetBitMap",
        "cached GetBitMap",
    ]
    # Whatever else the machine does: far from an order of magnitude off.
    assert 0 < measured[0]["measured"] < 500
    assert 0.2 < measured[3]["measured"] < 5
