"""Who may include what: the arrows of the architecture, checked on every source file."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"|^\s*#\s*include\s+<([^>]+)>', re.MULTILINE)

# Folder -> prefixes of includes it must not use.
FORBIDDEN = {
    "kernels": ("services/", "clients/", "proto/", "tests/", "grpc", "google/protobuf", "ratequant/v1/",
                "torch/", "rocksdb/", "nlohmann/", "spdlog/"),
    "services/common": ("kernels/", "ratequant/kv/", "clients/", "tests/", "services/allocation/",
                        "services/calibration/"),
    "services/allocation": ("kernels/", "ratequant/kv/", "clients/", "tests/", "services/calibration/"),
    "services/calibration": ("clients/", "tests/", "services/allocation/", "rocksdb/"),
    "clients": ("services/", "tests/", "rocksdb/"),
}


def sources(folder: str) -> list[pathlib.Path]:
    return [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in {".h", ".cc", ".cu", ".cuh", ".c"}]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_includes_follow_the_arrows(folder: str) -> None:
    files = sources(folder)
    assert files, f"{folder} has no sources"
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in files
        for name in (a or b for a, b in INCLUDE.findall(path.read_text()))
        if name.startswith(FORBIDDEN[folder])
    ]
    assert not wrong, "\n".join(wrong)


def test_python_never_imports_services() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "clients/python").rglob("*.py")
        if re.search(r"^\s*(from|import)\s+(services|tests)\b", path.read_text(), re.MULTILINE)
    ]
    assert not wrong


def test_the_product_never_reads_shared() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for folder in ("kernels", "services", "clients", "deploy", "proto")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {".h", ".cc", ".py", ".proto", ".sh", ""}
        and re.search(r"\bshared/(data|reference|design|prototype)\b", path.read_text(errors="ignore"))
    ]
    assert not wrong
