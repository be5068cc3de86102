"""Capture on every supported architecture, against transformers' own cache and autograd."""

from __future__ import annotations

import weakref

import pytest
import torch
from ratequant.capture import CaptureError, capture_sequence, probe_geometry
from ratequant.capture.checkpointing import decoder_layers
from tiny_models import ARCHITECTURES, TOKENS, make_model, random_ids
from transformers import DynamicCache, PreTrainedModel


@pytest.fixture(params=ARCHITECTURES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, PreTrainedModel]:
    kind, changes = ARCHITECTURES[request.param]
    return request.param, make_model(kind, **changes)


class KeepingCache(DynamicCache):
    """transformers' cache (no sliding layers), with the tensors that autograd knows kept.

    `nudge` is added to K or V of one layer: (layer, 0 or 1, tensor).
    """

    def __init__(self, nudge: tuple[int, int, torch.Tensor] | None = None) -> None:
        super().__init__()
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._nudge = nudge

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        tensors = [key_states, value_states]
        if self._nudge is not None and self._nudge[0] == layer_idx:
            tensors[self._nudge[1]] = tensors[self._nudge[1]] + self._nudge[2]
        self.kept[layer_idx] = (tensors[0], tensors[1])
        return super().update(*tensors, layer_idx, *args, **kwargs)


def summed_loss(model: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
    """The loss as transformers' users write it, from embeddings that need a gradient."""
    embeddings = model.get_input_embeddings()(ids[None]).requires_grad_()
    logits = model(inputs_embeds=embeddings, past_key_values=cache, use_cache=cache is not None).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1].double(), ids[1:], reduction="sum")


def capture(model: PreTrainedModel, ids: torch.Tensor, checkpoint: bool = False):
    """(loss, {layer: (K, V, dK, dV)} in the order of delivery)."""
    layers = {}

    def on_layer(layer: int, *tensors: torch.Tensor) -> None:
        assert layer not in layers
        layers[layer] = tuple(t.clone() for t in tensors)

    return capture_sequence(model, probe_geometry(model), ids, on_layer, checkpoint), layers


def test_geometry_is_the_configurations(case) -> None:
    name, model = case
    config = model.config
    kv_heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    geometry = probe_geometry(model)
    assert vars(geometry) == {"layers": 3, "kv_heads": kv_heads, "query_heads": 4, "head_dim": head_dim}
    assert name != "llama-mqa" or geometry.kv_heads == 1


def test_every_layer_comes_once_last_first_with_all_tokens(case) -> None:
    _, model = case
    geometry = probe_geometry(model)
    _, layers = capture(model, random_ids())
    assert list(layers) == [2, 1, 0]
    shape = (geometry.kv_heads, TOKENS, geometry.head_dim)
    assert all(t.shape == shape and t.dtype == torch.float32 for ts in layers.values() for t in ts)


def test_loss_is_that_of_a_plain_pass(case) -> None:
    _, model = case
    ids = random_ids()
    loss, _ = capture(model, ids)
    assert loss.tokens == TOKENS - 1
    assert loss.sum == pytest.approx(summed_loss(model, ids, None).item(), rel=1e-6)


def test_keys_and_values_are_those_of_transformers_cache(case) -> None:
    _, model = case
    ids = random_ids()
    _, layers = capture(model, ids)
    cache = KeepingCache()
    summed_loss(model, ids, cache)
    for layer, (keys, values) in cache.kept.items():
        torch.testing.assert_close(layers[layer][0], keys[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layers[layer][1], values[0], rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_autograd(case) -> None:
    _, model = case
    ids = random_ids()
    _, layers = capture(model, ids)
    cache = KeepingCache()
    loss = summed_loss(model, ids, cache)
    gradients = torch.autograd.grad(loss, [t for kept in cache.kept.values() for t in kept])
    for n, gradient in enumerate(gradients):
        captured = layers[n // 2][2 + n % 2]
        assert captured.abs().max() > 0
        torch.testing.assert_close(captured, gradient[0], rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("which", [0, 1], ids=["k", "v"])
def test_gradients_are_those_of_finite_differences(case, which: int) -> None:
    """Nudges K (or V) where it enters the cache and looks at what the loss does."""
    _, model = case
    ids = random_ids()
    _, layers = capture(model, ids)
    generator = torch.Generator().manual_seed(which)
    for layer, tensors in layers.items():
        gradient = tensors[2 + which]
        # Along the gradient, bent by noise: a slope well above fp32's rounding.
        direction = gradient * torch.rand(gradient.shape, generator=generator)
        direction = direction / direction.norm()
        step = 4e-3 * tensors[which].norm() / gradient[0].numel() ** 0.5
        with torch.no_grad():
            ahead, behind = (
                summed_loss(model, ids, KeepingCache((layer, which, sign * step * direction))).item()
                for sign in (1, -1)
            )
        slope = (ahead - behind) / (2 * float(step))
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


def test_keys_are_rotated_as_computed_by_hand() -> None:
    """Layer 0 of a Llama in fp64: RMSNorm, projection, rotation of the two halves."""
    model = make_model("llama", attention_bias=True)
    ids = random_ids()
    _, layers = capture(model, ids)
    block, config = model.model.layers[0], model.config
    x = model.model.embed_tokens.weight[ids].double()
    x = x * (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).rsqrt() * block.input_layernorm.weight.double()
    half = config.head_dim // 2

    def heads(projection: torch.nn.Linear) -> torch.Tensor:
        y = x @ projection.weight.double().T + projection.bias.double()
        return y.view(TOKENS, config.num_key_value_heads, config.head_dim).transpose(0, 1)

    theta = config.rope_parameters["rope_theta"]
    frequencies = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(TOKENS, dtype=torch.float64)[:, None] * frequencies
    left, right = heads(block.self_attn.k_proj).split(half, -1)
    turned = torch.cat([left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()], -1)
    torch.testing.assert_close(layers[0][0].double(), turned, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layers[0][1].double(), heads(block.self_attn.v_proj), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_nothing_is_kept_of_a_layer_that_was_handed_over(checkpoint: bool) -> None:
    model = make_model("llama")
    handed_over: list[weakref.ref] = []

    def on_layer(layer: int, *tensors: torch.Tensor) -> None:
        assert [r for r in handed_over if r() is not None] == []
        handed_over.extend(map(weakref.ref, tensors))

    capture_sequence(model, probe_geometry(model), random_ids(), on_layer, checkpoint)
    assert len(handed_over) == 12 and all(r() is None for r in handed_over)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_layers_that_run_again_give_the_same_bits(case) -> None:
    _, model = case
    loss, layers = capture(model, random_ids())
    again = capture(model, random_ids(), checkpoint=True)
    assert again[0] == loss and list(again[1]) == list(layers)
    for layer, tensors in layers.items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, again[1][layer], strict=True))
    # The model is left as it was.
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert capture(model, random_ids())[0] == loss


def test_layers_that_run_again_keep_no_activations() -> None:
    """Counted in the forward pass, by what autograd is given to keep outside of the layers."""
    model = make_model("llama", num_hidden_layers=6)
    geometry = probe_geometry(model)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    def elements(checkpoint: bool) -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            capture_sequence(model, geometry, random_ids(), lambda *tensors: None, checkpoint)
        return sum(kept)

    # The final norm and the loss are left.
    assert elements(checkpoint=True) < elements(checkpoint=False) / 6


def test_a_model_whose_layers_cannot_run_again_is_refused() -> None:
    model = make_model("llama")
    with pytest.raises(CaptureError, match="3 of 4 layers of 'llama' can run again"):
        decoder_layers(model, 4)


def test_sequences_do_not_influence_each_other() -> None:
    model = make_model("llama")
    first, second = random_ids(seed=1), random_ids(seed=2)
    alone = capture(model, second)
    capture(model, first)
    after = capture(model, second)
    assert after[0] == alone[0]
    assert all(torch.equal(a, b) for n in alone[1] for a, b in zip(alone[1][n], after[1][n]))


def test_bf16_gives_bf16_tensors_and_nearly_the_same_loss() -> None:
    model = make_model("llama", initializer_range=0.05)
    ids = random_ids()
    exact, _ = capture(model, ids)
    rough, layers = capture(model.to(torch.bfloat16), ids)
    assert all(t.dtype == torch.bfloat16 for t in layers[0])
    assert rough.sum == pytest.approx(exact.sum, rel=1e-2)


def test_what_the_callback_raises_ends_the_capture() -> None:
    model = make_model("llama")

    def on_layer(layer: int, *tensors: torch.Tensor) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        capture_sequence(model, probe_geometry(model), random_ids(), on_layer)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    model = make_model("llama")
    model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match="loss is nan"):
        capture(model, random_ids())


def test_loss_gradient_in_chunks_is_that_of_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    from ratequant.capture import loss

    ids = random_ids(tokens=11)
    logits = torch.randn(11, 320, generator=torch.Generator().manual_seed(0)) * 5
    reference = logits.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(reference[:-1], ids[1:], reduction="sum")
    expected.backward()
    monkeypatch.setattr(loss, "_CHUNK_ELEMENTS", 3 * 320)  # 10 predictions: 3, 3, 3, 1.
    assert loss.summed_nll_to_gradient_(logits, ids) == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(logits, reference.grad, rtol=1e-5, atol=1e-6)
