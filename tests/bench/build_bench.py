#!/usr/bin/env python3
"""Building everything that ships from nothing, without CUDA: no compiler cache,
no files of an earlier build. The tests aren't built."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build() -> float:
    """Seconds of configuring and building into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for command in (
            ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DRATEQUANT_TESTS=OFF", "-DRATEQUANT_CUDA=OFF"],
            ["cmake", "--build", folder],
        ):
            done = subprocess.run(
                command, env=os.environ | {"CCACHE_DISABLE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode != 0:
                sys.exit(f"{done.stdout[-4000:]}\nthe build failed")
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="measures nothing: a build takes minutes")
    quick = parser.parse_args().quick
    minutes = None if quick else build() / 60
    print(
        json.dumps(
            {
                "row": "build from nothing",
                "measured": minutes,
                "unit": "min",
                "against": "2 cores, without CUDA",
                "goal": "<= 6 min",
                "met": None if minutes is None else minutes <= 6,
                "note": "not measured: takes minutes" if quick else f"{len(os.sched_getaffinity(0))} cores, without tests",
            }
        )
    )


if __name__ == "__main__":
    main()
