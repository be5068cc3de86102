"""The C++ runtime through its C ABI, without torch."""

from __future__ import annotations

import array
import ctypes
import gc
import pathlib
import shutil
import subprocess
import sys

import pytest

from ratequant import kv_library, runtime
from ratequant.runtime import (
    CacheFormat,
    Geometry,
    KvCache,
    KvInvalidArgumentError,
    KvRuntimeError,
    Quantizer,
    RuntimeLibraryError,
    TensorView,
)

DIM = 32
HEADS = 2


def make_format(bits=4, quantizer="rtn", **changes) -> CacheFormat:
    parts = {
        "geometry": Geometry(layers=1, kv_heads=HEADS, head_dim=DIM),
        "quantizers": [Quantizer.parse(quantizer)],
        "quantizer_index": [0] * 4,
        "width": [bits] * 4,
        "sink_tokens": 2,
        "window": 4,
    }
    return CacheFormat(**(parts | changes))


class Buffer:
    """[HEADS, tokens, DIM] of fp32 and its view."""

    def __init__(self, tokens: int, fill=lambda i: 0.0):
        self.data = array.array("f", [fill(i) for i in range(HEADS * tokens * DIM)])
        self.view = TensorView(self.data.buffer_info()[0], runtime.FLOAT32, tokens * DIM, DIM)


def test_the_structs_have_the_sizes_of_the_c_header(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    include = pathlib.Path(__file__).resolve().parents[2] / "kernels" / "include"
    names = ["quantizer", "section_layout", "cache_config", "const_tensor", "tensor"]
    names += ["execution", "batch_entry", "attention_params"]
    source = "#include <stdio.h>\n#include <ratequant/kv/c_api.h>\nint main(void) {\n"
    source += "".join(f'  printf("%zu\\n", sizeof(rq_kv_{name}));\n' for name in names)
    (tmp_path / "sizes.c").write_text(source + "  return 0;\n}\n")
    subprocess.run([compiler, "-std=c11", f"-I{include}", "sizes.c", "-o", "sizes"], cwd=tmp_path, check=True)
    sizes = [int(line) for line in subprocess.check_output([tmp_path / "sizes"]).split()]
    ours = [kv_library.CQuantizer, kv_library.CSectionLayout, kv_library.CCacheConfig]
    ours += [kv_library.CTensor, kv_library.CTensor]
    ours += [kv_library.CExecution, kv_library.CBatchEntry, kv_library.CAttentionParams]
    assert sizes == [ctypes.sizeof(struct) for struct in ours]


def test_quantizers_parse_and_print():
    assert Quantizer.parse("kivi") == Quantizer(kind=2)
    quantizer = Quantizer.parse("turboquant:seed=7,value_scale=l2")
    assert quantizer == Quantizer(kind=4, seed=7, value_scale=1)
    assert quantizer.name == "turboquant:seed=7,value_scale=l2"
    assert Quantizer.parse("kivi:group_size=64").name == "kivi:group_size=64"
    with pytest.raises(KvInvalidArgumentError, match="gptq.*rtn"):
        Quantizer.parse("gptq")


@pytest.mark.parametrize(
    ("quantizer", "width", "section"),
    [("rtn", 4, 1088), ("kivi", 2, 768), ("quarot", 2, 640), ("turboquant", 3, 832), ("tcq", 2, 544), (None, 16, 4096)],
)
def test_sections_have_the_formats_sizes(quantizer, width, section):
    spec = Quantizer.parse(quantizer) if quantizer else None
    for tensor in (runtime.KEY, runtime.VALUE):
        layout = runtime.section_layout(spec, tensor, width, head_dim=64, page_tokens=32)
        assert layout.section_bytes == section
        assert layout.row_bytes == 64 * width // 8


def test_tokens_come_back_from_packed_bytes():
    keys = Buffer(20, lambda i: (i * 37 % 101 - 50) / 32)
    values = Buffer(20, lambda i: (i * 53 % 97 - 48) / 32)
    with KvCache(make_format(4)) as cache:
        sequence = cache.add_sequence()
        cache.append(sequence, 0, 20, keys.view, values.view)
        assert cache.length(sequence, 0) == 20
        k, v = Buffer(20), Buffer(20)
        cache.gather(sequence, 0, 0, 20, k.view, v.view)
        for got, put in ((k, keys), (v, values)):
            for head in range(HEADS):
                rows = [slice((head * 20 + t) * DIM, (head * 20 + t + 1) * DIM) for t in range(20)]
                exact = [got.data[row] == put.data[row] for row in rows]
                # Two sinks and a window of four; 4 bits can't hold the others.
                assert exact == [True] * 2 + [False] * 14 + [True] * 4
            # rtn at 4 bits: half a step of absmax / 7.
            assert max(abs(a - b) for a, b in zip(got.data, put.data)) <= 0.51 * (51 / 32) / 7


def test_one_tensor_can_be_read_alone():
    values = Buffer(20, float)
    with KvCache(make_format(16)) as cache:
        sequence = cache.add_sequence()
        keys = Buffer(20)
        cache.append(sequence, 0, 20, keys.view, values.view)
        out = Buffer(20)
        cache.gather(sequence, 0, 0, 20, None, out.view)
        assert out.data == values.data


def test_bytes_are_counted():
    with KvCache(make_format(4)) as cache:
        section = runtime.section_layout(Quantizer.parse("rtn"), runtime.KEY, 4, DIM).section_bytes
        token = 4 * DIM * 2
        assert cache.page_bytes() == cache.page_bytes(0) == 4 * section
        assert cache.sequence_bytes(4) == 4 * token
        assert cache.sequence_bytes(37) == 2 * 4 * section + 6 * token
        sequence = cache.add_sequence()
        assert cache.allocated_bytes(sequence) == 0
        keys, values = Buffer(37), Buffer(37)  # A view doesn't keep its memory alive.
        cache.append(sequence, 0, 37, keys.view, values.view)
        assert cache.allocated_bytes(sequence) == cache.sequence_bytes(37)
        cache.remove_sequence(sequence)
        assert cache.free_page_bytes() == 2 * 4 * section
        cache.release_free_pages()
        assert cache.free_page_bytes() == 0


def test_errors_carry_the_code_and_the_place():
    bad = Buffer(3)
    bad.data[1 * 3 * DIM + 2 * DIM + 9] = float("nan")
    good, short = Buffer(3), Buffer(2)
    with KvCache(make_format()) as cache:
        sequence = cache.add_sequence()
        with pytest.raises(KvRuntimeError, match="layer 0, head 1, V, token 2, channel 9") as caught:
            cache.append(sequence, 0, 3, good.view, bad.view)
        assert caught.value.code == "DATA_LOSS"
        assert cache.length(sequence, 0) == 0
        with pytest.raises(KvRuntimeError, match="no sequence 99") as caught:
            cache.length(99, 0)
        assert caught.value.code == "NOT_FOUND"
        with pytest.raises(KvRuntimeError) as caught:
            cache.gather(sequence, 0, 0, 2, short.view, None)
        assert caught.value.code == "OUT_OF_RANGE"
        with pytest.raises(KvInvalidArgumentError, match="layer 3"):
            cache.append(sequence, 3, 3, good.view, good.view)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"width": [4, 4, 9, 4]}, r"width\[2\] is 9"),
        ({"width": [4, 4, -1, 4]}, r"width\[2\] -1"),
        ({"width": [4] * 3, "quantizer_index": [0] * 3}, "3 group formats"),
        ({"quantizer_index": [0] * 3}, "3 quantizer indices for 4 widths"),
        ({"quantizer_index": [0, 1, 0, 0]}, r"quantizer_index\[1\] is 1"),
        ({"geometry": Geometry(1, HEADS, 33)}, "33"),
        ({"geometry": Geometry(0, HEADS, DIM)}, "layers 0"),
        ({"page_tokens": 2**33}, "page_tokens 8589934592"),
        ({"page_tokens": 24}, "24"),
        ({"window": -1}, "window -1"),
        ({"quantizers": [Quantizer(kind=9)]}, "kind 9"),
        ({"quantizers": [Quantizer(kind=1, seed=4)]}, "doesn't apply"),
    ],
)
def test_formats_that_arent_supported_are_named(changes, text):
    with pytest.raises(KvInvalidArgumentError, match=text):
        KvCache(make_format(**changes))


def test_a_closed_cache_is_an_error_and_not_a_crash():
    cache = KvCache(make_format())
    sequence = cache.add_sequence()
    cache.close()
    cache.close()
    with pytest.raises(KvRuntimeError, match="no cache") as caught:
        cache.length(sequence, 0)
    assert caught.value.code == "NOT_FOUND"


def test_a_forgotten_cache_is_freed():
    cache = KvCache(make_format())
    handle, library = cache._handle, cache._library
    del cache
    gc.collect()
    with pytest.raises(KvRuntimeError, match="no cache"):
        library.call("rq_kv_cache_destroy", handle)


def test_a_library_that_isnt_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(kv_library.LIBRARY_VARIABLE, str(tmp_path / "nowhere.so"))
    with pytest.raises(RuntimeLibraryError, match=r"RATEQUANT_KV_LIBRARY is .*nowhere\.so"):
        kv_library.load_library()


def test_without_a_variable_the_package_and_the_source_tree_are_searched(monkeypatch, tmp_path):
    monkeypatch.delenv(kv_library.LIBRARY_VARIABLE, raising=False)
    package = tmp_path / "clients" / "python" / "ratequant"
    monkeypatch.setattr(kv_library, "__file__", str(package / "kv_library.py"))
    with pytest.raises(RuntimeLibraryError) as caught:
        kv_library.find_library()
    built, installed = tmp_path / "build" / "lib", package / "_native"
    for place in (str(built), str(installed), kv_library.LIBRARY_VARIABLE):
        assert place in str(caught.value)
    for folder in (built, installed):  # the package's own comes first
        folder.mkdir(parents=True)
        (folder / "libratequant_kv.so").touch()
        assert kv_library.find_library() == folder / "libratequant_kv.so"


def test_a_file_that_isnt_a_library_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "text.so").write_text("not a library")
    monkeypatch.setenv(kv_library.LIBRARY_VARIABLE, str(tmp_path / "text.so"))
    with pytest.raises(RuntimeLibraryError, match=r"text\.so"):
        kv_library.load_library()


def test_a_library_of_another_abi_version_is_refused(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "other.c").write_text(
        "unsigned rq_kv_abi_version(void) { return 7; }\nunsigned rq_kv_format_version(void) { return 1; }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "other.c", "-o", "other.so"], cwd=tmp_path, check=True)
    with pytest.raises(RuntimeLibraryError, match="ABI version 7; this package needs 1"):
        kv_library.Library(tmp_path / "other.so")


def test_importing_the_package_loads_neither_torch_nor_grpc():
    code = (
        "import sys, ratequant, ratequant.runtime\n"
        "assert not {'torch', 'transformers', 'grpc'} & set(sys.modules), sorted(sys.modules)\n"
        "assert ratequant.__version__ and 'RateQuantCache' in dir(ratequant)\n"
        "assert ratequant.BitMap.DESCRIPTOR.full_name == 'ratequant.v1.BitMap'\n"
        "try:\n    ratequant.nothing\n"
        "except AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    raise SystemExit('ratequant.nothing exists')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_fork_and_a_saved_sequence_hold_the_same_tokens():
    with KvCache(make_format(), runtime.CacheLimits(num_pages=10, max_sequences=3)) as cache, KvCache(
        make_format()
    ) as other:
        assert cache.format_digest == other.format_digest
        parent = cache.add_sequence()
        tokens = Buffer(70, lambda i: (i % 17) / 4 - 2)
        cache.append(parent, 0, 70, tokens.view, tokens.view, runtime.Execution(threads=runtime.Threads(2)))
        free = cache.free_pages()
        child = cache.fork_sequence(parent, 70)
        assert cache.free_pages() == free
        saved = cache.save_sequence(child)
        moved = other.load_sequence(saved)
        assert other.save_sequence(moved) == saved == cache.save_sequence(parent)
        cache.add_sequence()
        with pytest.raises(KvRuntimeError, match="all 3 sequences") as error:
            cache.add_sequence()
        assert error.value.code == "RESOURCE_EXHAUSTED"
        with pytest.raises(KvInvalidArgumentError, match="not a saved sequence"):
            other.load_sequence(b"no")
    with KvCache(make_format(bits=3)) as narrower:
        with pytest.raises(KvInvalidArgumentError, match="a saved sequence of format"):
            narrower.load_sequence(saved)


def test_a_truncated_sequence_goes_on():
    with KvCache(make_format()) as cache:
        sequence = cache.add_sequence()
        tokens = Buffer(70, lambda i: (i % 17) / 4 - 2)
        cache.append(sequence, 0, 70, tokens.view, tokens.view)
        packed = 70 - cache.format.window
        with pytest.raises(KvInvalidArgumentError, match=f"supported are {packed} to 70"):
            cache.truncate_sequence(sequence, packed - 1)
        cache.truncate_sequence(sequence, packed)
        assert cache.length(sequence, 0) == packed


def test_a_step_attends_to_what_is_in_the_cache():
    cache_format = make_format(bits=16, geometry=Geometry(layers=1, kv_heads=HEADS, head_dim=DIM, query_heads=4))
    with KvCache(cache_format) as cache:
        sequence = cache.add_sequence()
        batch = cache.batch(1, 8)
        batch.prepare([(sequence, 8)])
        # Every key is the same, so that attention is the mean of the values seen.
        keys = Buffer(8, lambda i: 1.0)
        values = Buffer(8, lambda i: float(i // DIM % 8))
        batch.append(0, keys.view, values.view)
        data = array.array("f", [0.5] * (4 * 8 * DIM))
        view = TensorView(data.buffer_info()[0], runtime.FLOAT32, 8 * DIM, DIM)
        batch.attend(0, view, view, softmax_scale=0.25)
        for head in range(4):
            for token in range(8):
                assert data[(head * 8 + token) * DIM] == pytest.approx(token / 2, abs=1e-5)
        with pytest.raises(KvInvalidArgumentError, match="softmax_scale"):
            batch.attend(0, view, view, softmax_scale=0.0)
        with pytest.raises(KvRuntimeError, match="in the step|prepared for") as error:
            batch.append(0, keys.view, values.view)
        assert error.value.code == "FAILED_PRECONDITION"
