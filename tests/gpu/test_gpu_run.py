"""tests/gpu/run on a machine without a GPU says so, and doesn't call it a pass."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a GPU")
def test_no_gpu_is_not_a_pass() -> None:
    run = subprocess.run(
        [ROOT / "tests/gpu/run"], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 77, run.stdout + run.stderr
    assert "no GPU on this machine" in run.stdout
    assert "nothing was tested" in run.stdout


def test_an_unknown_option_is_refused() -> None:
    run = subprocess.run(
        [ROOT / "tests/gpu/run", "--fast"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert "unknown option '--fast'" in run.stderr
