"""Where the helpers of the tests of upgrades lie."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / "deploy"), str(_TESTS / "python")]
