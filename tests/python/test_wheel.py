"""The wheel, built from this tree, installed where nothing else of the tree is, and used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

USE = """
import sys

import torch
import transformers

import ratequant
from ratequant import RateQuantCache, kv_library
from ratequant.client import Client
from ratequant.v1 import bit_map_pb2

site = sys.argv[1]
assert ratequant.__file__.startswith(site), ratequant.__file__
assert bit_map_pb2.__file__.startswith(site), bit_map_pb2.__file__
assert str(kv_library.find_library()).startswith(site), kv_library.find_library()

request = Client.bit_map_request("Qwen/Qwen3-8B", effective_bits=3)
assert request.model == "models/Qwen--Qwen3-8B"

config = transformers.LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8,
)
model = transformers.AutoModelForCausalLM.from_config(config).eval()
model.set_attn_implementation("ratequant")
geometry = {"layers": 2, "kv_heads": 2, "head_dim": 8}
bit_map = {"geometry": geometry, "quantizers": ["rtn"], "quantizer_index": [0] * 8, "width": [4] * 8}
cache = RateQuantCache(bit_map, config)
ids = torch.arange(50)[None]
out = model.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=cache, max_new_tokens=5,
                     do_sample=False, eos_token_id=None, pad_token_id=0)
assert out.shape == (1, 55) and cache.get_seq_length() == 54
print("used")
"""


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", str(root), "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--disable-pip-version-check", "-w", str(folder)],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = folder.glob("*.whl")
    return made


def test_the_wheel_fits_every_python_3_and_has_everything(wheel, root):
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = root / "clients" / "python"
    for path in (sources / "ratequant").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(sources).as_posix() in names
    for proto in (root / "proto" / "ratequant" / "v1").glob("*.proto"):
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py"):
            assert f"ratequant/v1/{proto.stem}{ending}" in names
    assert {"ratequant/py.typed", "ratequant/_native/libratequant_kv.so"} <= names


def test_the_wheel_is_installed_and_used(wheel, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'), end='')"
    of_the_tree = ("PYTHONPATH", "RATEQUANT_KV_LIBRARY")
    environment = {name: value for name, value in os.environ.items() if name not in of_the_tree}
    run = {"check": True, "capture_output": True, "text": True, "env": environment, "cwd": tmp_path, "timeout": 600}
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, **run)
    site = subprocess.run([python, "-c", where], **run).stdout
    # torch, transformers and gRPC come from this Python's packages, behind the venv's own.
    Path(site, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run([python, "-c", USE, site], **(run | {"check": False}))
    assert (done.returncode, done.stdout) == (0, "used\n"), done.stderr


def test_every_source_is_python_3_10s(root):
    files = sorted((root / "clients" / "python").rglob("*.py"))
    assert files
    for path in files:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))
