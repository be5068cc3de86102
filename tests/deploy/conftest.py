"""Where the helpers of the tests of deployments lie."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The tiny model.
sys.path.append(str(Path(__file__).resolve().parents[1] / "python"))
