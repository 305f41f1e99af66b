"""Two-phase tuning forward against one dense pass of stock transformers (sec. 2.3, 7.1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from adapters.errors import AdapterError
from adapters.tuning import target as module
from adapters.tuning.layout import MaskGroups, Sample, mask_groups
from adapters.tuning.target import TargetModel
from tests import factories
from tests.adapters import tiny

FAMILIES = [
    "Llama",
    "Qwen2",
    "Qwen3",
    "Mistral",
    "Gemma2",
    "Gemma3Text",
    "Phi3",
    "GPTNeoX",
    "OPT",
    "GPT2",
    "Granite",
    "Olmo2",
    "Mixtral",
    "Qwen3Moe",
]
MASKS, PROMPTS = 3, 4
TEXT, ANCHORS = 30, [5, 6, 13, 22, 27]


def sample(vocabulary: int) -> Sample:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, vocabulary, (TEXT,), generator=generator).tolist()
    return Sample(tokens, [(5, TEXT)])


def dense_mask(groups: MaskGroups, window: int | None) -> Tensor:
    """Who sees whom of prompts, real tokens, mask rows: bool `[real + rows, all]`."""
    rows = groups.labels.shape[1]
    seen = torch.zeros(TEXT + rows, PROMPTS + TEXT + rows, dtype=torch.bool)
    seen[:TEXT, PROMPTS : PROMPTS + TEXT] = torch.ones(TEXT, TEXT).tril().bool()
    seen[TEXT:, :PROMPTS] = True
    seen[TEXT:, PROMPTS:] = groups.visible[0]
    if window is not None:
        positions = torch.cat([torch.arange(TEXT), groups.positions[0]])
        seen[:, PROMPTS:] &= positions[:, None] - positions < window
    return seen


def attention_mask(model: Any, groups: MaskGroups) -> Tensor | dict[str, Tensor]:
    """The dense mask as the family takes it: one, or one a kind of layer."""

    def additive(window: int | None) -> Tensor:
        seen = dense_mask(groups, window)[None, None]
        return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)

    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"}:
        return {
            "full_attention": additive(None),
            "sliding_attention": additive(window),
        }
    return additive(window if config.model_type in ("mistral", "phi3") else None)


def dense(
    model: Any, text: Sample, groups: MaskGroups, embeddings: Tensor, prompt_kv: Tensor
) -> Tensor:
    """Hidden states of real and mask rows in one stock forward, prompts as a cache."""
    model.set_attn_implementation("eager")
    cache = DynamicCache()
    for layer, (key, value) in enumerate(prompt_kv):
        cache.update(key[None], value[None], layer)
    embedded = model.get_input_embeddings()(torch.tensor([text.token_ids]))
    positions = torch.cat([torch.arange(TEXT)[None], groups.positions], dim=1)
    output = model.base_model(
        inputs_embeds=torch.cat([embedded, embeddings], dim=1),
        position_ids=positions,
        attention_mask=attention_mask(model, groups),
        past_key_values=cache,
        use_cache=True,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def trainables(model: Any, target: TargetModel, groups: int) -> tuple[Tensor, Tensor]:
    """Random prompt K/V and mask embeddings of all rows."""
    torch.manual_seed(4)
    context = target.context(torch.tensor([[1, 2]]))
    _, heads, _, dim = context.keys[0].shape
    width = model.get_input_embeddings().weight.shape[1]
    prompt_kv = torch.randn(len(context.keys), 2, heads, PROMPTS, dim)
    masks = torch.randn(MASKS, width) * model.get_input_embeddings().weight.std()
    return prompt_kv, masks.repeat(groups, 1)[None]


@pytest.mark.parametrize("architecture", FAMILIES)
@torch.no_grad()
def test_two_phases_equal_one_dense_pass(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    if architecture == "Gemma2":
        for layer in model.model.layers:  # low enough for tiny scores to be capped
            layer.self_attn.attn_logit_softcapping = 0.5
    target = TargetModel(model)
    text = sample(model.config.vocab_size)
    groups = mask_groups([text], [ANCHORS], MASKS)
    prompt_kv, embeddings = trainables(model, target, len(ANCHORS))
    context = target.context(torch.tensor([text.token_ids]))
    logits = target.project(
        target.masks(context, embeddings, groups.positions, groups.visible, prompt_kv)
    )
    hidden = dense(model, text, groups, embeddings, prompt_kv)
    expected = target.project(hidden[:, TEXT:])
    scale = float(expected.abs().max())
    assert torch.allclose(logits / scale, expected / scale, atol=1e-5)
    assert (logits.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("architecture", FAMILIES)
@torch.no_grad()
def test_real_rows_do_not_know_of_prompts_and_masks(architecture: str) -> None:
    """The rows the model itself decides by are its own, whatever the adapter."""
    model = factories.tiny_model(architecture)
    target = TargetModel(model)
    text = sample(model.config.vocab_size)
    groups = mask_groups([text], [ANCHORS], MASKS)
    prompt_kv, embeddings = trainables(model, target, len(ANCHORS))
    with_adapter = dense(model, text, groups, embeddings, prompt_kv)[:, :TEXT]
    plain = model.base_model(torch.tensor([text.token_ids])).last_hidden_state
    scale = float(plain.abs().max())
    assert torch.allclose(with_adapter / scale, plain / scale, atol=1e-5)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3", "Gemma2", "GPT2"])
@torch.no_grad()
def test_context_is_the_stock_models_cache(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    ids = torch.tensor([sample(model.config.vocab_size).token_ids])
    cache = DynamicCache()
    model.base_model(ids, past_key_values=cache, use_cache=True)
    context = TargetModel(model).context(ids)
    for layer, (key, value) in enumerate(zip(context.keys, context.values, strict=True)):
        assert torch.allclose(key, cache.layers[layer].keys, atol=1e-5)
        assert torch.allclose(value, cache.layers[layer].values, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "setting"),
    [
        ("Llama", {}),
        ("Granite", {"logits_scaling": 8.0}),
        ("Gemma2", {"final_logit_softcapping": 0.5}),
        ("Cohere", {"logit_scale": 0.25}),
    ],
)
@torch.no_grad()
def test_logits_are_scaled_and_capped_as_the_model_does(
    architecture: str, setting: dict[str, float]
) -> None:
    config = factories.tiny_config(architecture)
    for name, value in setting.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ids = torch.tensor([[1, 2, 3]])
    hidden, logits = model.base_model(ids).last_hidden_state, model(ids).logits
    assert torch.allclose(TargetModel(model).project(hidden), logits, atol=1e-5)


@pytest.mark.parametrize("architecture", ["Llama", "Gemma3Text", "OPT"])
def test_token_statistics_are_of_what_the_embedding_returns(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3 scales rows as it looks them up; a vocabulary is read in parts."""
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 50)
    model = factories.tiny_model(architecture)
    rows = model.get_input_embeddings()(torch.arange(model.config.vocab_size))
    mean, spread = TargetModel(model).token_statistics()
    assert torch.allclose(mean, rows.mean(dim=0), atol=1e-6)
    assert spread == pytest.approx(float(rows.std()), rel=1e-2)


def test_weights_of_any_kind_are_never_looked_at() -> None:
    """Quantised trunks: embedding, layers and head keep integers and compute in bfloat16."""
    model = tiny.quantised(tiny.llama().bfloat16())
    target = TargetModel(model)
    assert target.dtype == torch.bfloat16
    mean, spread = target.token_statistics()
    assert mean.shape == (tiny.HIDDEN,)
    assert spread > 0
    context = target.context(torch.tensor([[1, 2, 3]]))
    assert context.keys[0].dtype == torch.bfloat16
    prompt_kv = torch.zeros(tiny.LAYERS, 2, tiny.KV_HEADS, 1, tiny.HEAD_DIM, requires_grad=True)
    rows = torch.randn(1, 2, tiny.HIDDEN, dtype=torch.bfloat16)
    positions, visible = torch.tensor([[3, 4]]), torch.ones(1, 2, 5, dtype=torch.bool)
    hidden = target.masks(context, rows, positions, visible, prompt_kv)
    target.project(hidden).square().sum().backward()
    assert prompt_kv.grad is not None
    assert prompt_kv.grad.dtype == torch.float32


@torch.no_grad()
def test_neighbours_and_padding_change_nothing() -> None:
    target = TargetModel(tiny.llama())
    samples = tiny.noise(4)
    anchors = [s.anchors()[: 3 + i] for i, s in enumerate(samples)]
    prompt_kv = torch.randn(tiny.LAYERS, 2, tiny.KV_HEADS, PROMPTS, tiny.HEAD_DIM)
    masks = torch.randn(MASKS, tiny.HIDDEN)

    def states(chosen: list[int]) -> Tensor:
        some, places = [samples[i] for i in chosen], [anchors[i] for i in chosen]
        groups = mask_groups(some, places, MASKS)
        width = max(len(s.token_ids) for s in some)
        ids = [s.token_ids + [0] * (width - len(s.token_ids)) for s in some]
        rows = masks.repeat(groups.labels.shape[1] // MASKS, 1).expand(len(some), -1, -1)
        return target.masks(
            target.context(torch.tensor(ids)), rows, groups.positions, groups.visible, prompt_kv
        )

    together = states([0, 1, 2, 3])
    for i, places in enumerate(anchors):
        used = len(places) * MASKS
        assert torch.allclose(together[i, :used], states([i])[0], atol=1e-4)


@pytest.mark.parametrize("architecture", ["Falcon", "GPTJ", "Llama4Text", "GptOss"])
def test_what_cannot_be_tuned_exactly_is_refused(architecture: str) -> None:
    with pytest.raises(AdapterError, match="cannot be tuned"):
        TargetModel(factories.tiny_model(architecture))


def test_gradients_reach_the_trainables_only() -> None:
    model = tiny.llama()
    text = tiny.answered(model, 1)[0]
    target = TargetModel(model)
    groups = mask_groups([text], [text.anchors()[:4]], MASKS)
    prompt_kv = torch.randn(
        tiny.LAYERS, 2, tiny.KV_HEADS, PROMPTS, tiny.HEAD_DIM, requires_grad=True
    )
    masks = torch.randn(MASKS, tiny.HIDDEN, requires_grad=True)
    context = target.context(torch.tensor([text.token_ids]))
    assert not any(t.requires_grad for t in (*context.keys, *context.values))
    rows = masks.repeat(4, 1)[None]
    target.masks(context, rows, groups.positions, groups.visible, prompt_kv).sum().backward()
    assert prompt_kv.grad is not None
    assert prompt_kv.grad.flatten(1).abs().sum(dim=1).gt(0).all()
    assert masks.grad is not None
    assert masks.grad.abs().sum(dim=1).gt(0).all()
    assert all(p.grad is None for p in model.parameters())
