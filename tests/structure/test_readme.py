"""The README's engine in C++ compiles against the headers as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the README leaves to the engine.
ENGINE = """
#include "clients/cpp/cache_config.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::kv {{
void Engine(const v1::BitMap& bit_map, LoopRunner* pool, int layer, int layers, int64_t tokens, float scale,
            KvCache::SequenceId other, const ConstHeads& keys, const ConstHeads& values, const ConstHeads& queries,
            const MutableHeads& out) {{
{lines}
}}
}}  // namespace ratequant::kv
"""


def test_the_lines_for_an_engine_compile_and_are_few(tmp_path: Path):
    protos = ROOT / "build" / "proto"
    compiler = shutil.which("g++")
    if compiler is None or not (protos / "ratequant/v1/bit_map.pb.h").exists():
        pytest.skip("no build with services; deploy/local/setup makes it")
    (lines,) = re.findall(r"^```cpp\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    assert len(lines.splitlines()) <= 20
    source = tmp_path / "engine.cc"
    source.write_text(ENGINE.format(lines=lines), encoding="utf-8")
    # An engine looks at each status; a sketch of one doesn't.
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result"]
    includes = [f"-I{folder}" for folder in (ROOT, ROOT / "kernels/include")] + ["-isystem", str(protos)]
    done = subprocess.run([compiler, *flags, *includes, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
