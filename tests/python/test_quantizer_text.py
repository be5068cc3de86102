"""Quantizers and resource names as text."""

from __future__ import annotations

import pytest

from ratequant.names import calibration_name, model_name
from ratequant.quantizer import QUANTIZER_IDS, parse_quantizer, quantizer_name, split_quantizers
from ratequant.runtime import Quantizer as RuntimeQuantizer
from ratequant.v1 import quantizer_pb2

TEXTS = [
    *QUANTIZER_IDS,
    "kivi:group_size=64",
    "quarot:seed=3",
    "turboquant:seed=7",
    "turboquant:key_scale=unbiased",
    "turboquant:seed=18446744073709551615,key_scale=unbiased,value_scale=l2",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_name_survives_the_round_trip(text):
    assert quantizer_name(parse_quantizer(text)) == text


@pytest.mark.parametrize("text", [*TEXTS, "kivi:group_size=32", "turboquant:key_scale=l2,seed=0"])
def test_python_and_the_runtime_read_and_write_the_same_text(text):
    message, spec = parse_quantizer(text), RuntimeQuantizer.parse(text)
    assert message.kind == spec.kind
    for field in message.ListFields():
        assert getattr(spec, field[0].name) == field[1]
    assert quantizer_name(message) == spec.name


def test_every_parameter_of_the_kind_is_filled_in():
    message = parse_quantizer("turboquant")
    assert message.key_scale == quantizer_pb2.Quantizer.L2
    assert message.value_scale == quantizer_pb2.Quantizer.UNBIASED
    assert parse_quantizer("kivi").group_size == 32


def test_fields_at_zero_mean_the_default():
    assert quantizer_name(quantizer_pb2.Quantizer(kind=quantizer_pb2.Quantizer.TURBOQUANT)) == "turboquant"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gptq", "gptq"),
        ("", "rtn, kivi, quarot, turboquant, tcq"),
        ("KIVI", "KIVI"),
        ("rtn:seed=1", "seed=1"),
        ("kivi:", "group_size"),
        ("kivi:group_size", "group_size"),
        ("kivi:group_size=x", "'x'"),
        ("kivi:group_size=-1", "'-1'"),
        ("kivi:group_size=0", "group_size 0"),
        ("quarot:seed=18446744073709551616", "18446744073709551616"),
        ("turboquant:key_scale=max", "l2, unbiased"),
        ("quarot:seed=1,seed=2", "twice"),
    ],
)
def test_an_unknown_quantizer_is_refused_by_name(text, named):
    with pytest.raises(ValueError, match=named):
        parse_quantizer(text)
    with pytest.raises(ValueError):
        RuntimeQuantizer.parse(text)


def test_words_of_a_command_line_may_hold_several_quantizers():
    words = ["kivi,turboquant:seed=7,key_scale=l2,rtn", "quarot"]
    assert split_quantizers(words) == ["kivi", "turboquant:seed=7,key_scale=l2", "rtn", "quarot"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("SmolLM2-135M", "models/SmolLM2-135M"),
        ("Qwen/Qwen3-8B", "models/Qwen--Qwen3-8B"),
        ("models/Qwen--Qwen3-8B", "models/Qwen--Qwen3-8B"),
    ],
)
def test_a_model_may_be_named_in_three_ways(given, name):
    assert model_name(given) == name


@pytest.mark.parametrize("given", ["", "-x", "a b", "x" * 129, "models/", "a\n"])
def test_what_cannot_be_a_model_id_is_refused(given):
    with pytest.raises(ValueError, match="isn't a model id"):
        model_name(given)


def test_calibrations_are_named_within_their_model():
    assert calibration_name("m", "latest") == "models/m/calibrations/latest"
    assert calibration_name("m", "models/m/calibrations/abc") == "models/m/calibrations/abc"
    with pytest.raises(ValueError):
        calibration_name("m", "")
