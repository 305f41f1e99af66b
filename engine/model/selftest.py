"""Which route serves an architecture exactly, found out on a tiny random model of it.

The tiny model decodes with draft trees whose drafts are partly right, in several steps, and must
give `generate`'s tokens. It costs a second and means that a new transformers release or an
unknown architecture is either served exactly or refused at load.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.attention.interface import NAME
from engine.batch import ForwardBatch, SegmentPlan
from engine.errors import UnsupportedModel
from engine.model.build import Sizes, build_runner
from engine.model.facts import model_facts
from engine.model.linears import NativeLinear, pack
from engine.model.loaded import LoadedModel
from engine.model.native import is_native
from engine.model.runner import ModelRunner, Route
from engine.speculation.tree import TreeTopology
from engine.speculation.verify import walk

PROMPT, NEW, MASKS, PROMPTS, BLOCK = 23, 24, 3, 4, 4
VOCAB = 128
SIZES = Sizes(
    num_blocks=-(-(PROMPT + NEW + MASKS) // BLOCK),
    block_size=BLOCK,
    adapter_slots=1,
    max_prompts=PROMPTS,
    max_masks=MASKS,
    step_rows=128,
    max_segments=1,
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A random model by one route, in float32 on the CPU, and an adapter nobody tuned.

    expected: a prompt of `PROMPT` tokens and what `generate` continues it with. prompt_kv, masks:
    as `ModelRunner.set_adapter` takes them.
    """

    loaded: LoadedModel
    expected: list[int]
    prompt_kv: Tensor
    masks: Tensor


def pick_route(config: Any) -> Route:
    """The first route that gives `generate`'s tokens. Raises UnsupportedModel if none does."""
    tiny = shrink(config)
    failures = []
    for route in Route:
        try:
            if serves_exactly(tiny, route):
                return route
            failures.append(f"{route}: other tokens than generate")
        except Exception as error:  # any failure of an unknown architecture is a refusal
            failures.append(f"{route}: {type(error).__name__}: {error}")
    raise UnsupportedModel(
        f"{config.model_type} cannot be served exactly by this engine ({'; '.join(failures)})"
    )


def shrink(config: Any, ranks: int = 1) -> Any:
    """The same architecture with tiny sizes; every kind of layer is kept.

    ranks: processes that are to share its heads evenly.
    """
    tiny = copy.deepcopy(config)
    heads, head_dim = 4 * ranks, 16
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    ratio = config.num_attention_heads // kv_heads
    kinds = list(getattr(config, "layer_types", None) or [])
    layers = max([2, *(kinds.index(kind) + 1 for kind in kinds)])
    small = {
        "vocab_size": VOCAB,
        "hidden_size": heads * head_dim,
        "word_embed_proj_dim": heads * head_dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, 4 // ratio) * ranks,
        "num_kv_heads": max(1, 4 // ratio) * ranks,
        "head_dim": head_dim,
        "rotary_dim": head_dim // 2,
        "intermediate_size": 48 * ranks,
        "ffn_dim": 48 * ranks,
        "n_inner": 48 * ranks,
        "moe_intermediate_size": 32 * ranks,
        "num_local_experts": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
        "sliding_window": 8,
        "attention_chunk_size": 8,
    }
    derived = {n for n, v in vars(type(config)).items() if isinstance(v, property)}
    for name, value in small.items():
        if name not in derived and getattr(tiny, name, None) is not None:
            setattr(tiny, name, value)
    if kinds:
        tiny.layer_types = kinds[:layers]
    _shrink_rope(tiny, head_dim)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(tiny, name, None)
    return tiny


def _shrink_rope(tiny: Any, head_dim: int) -> None:
    """Per-frequency factors (longrope) have one entry for each half of a head's dimensions."""
    rope = getattr(tiny, "rope_parameters", None)
    if not isinstance(rope, dict):
        return
    rotary = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    for name in ("short_factor", "long_factor"):
        if name in rope:
            rope[name] = rope[name][: rotary // 2]


def serves_exactly(tiny: Any, route: Route) -> bool:
    """Whether tree decoding of a random model by `route` gives `generate`'s greedy tokens."""
    trial = random_trial(tiny, route)
    return decodes_exactly(trial, build_runner(trial.loaded, SIZES, "sdpa"))


def serves_natively(config: Any) -> bool:
    """The same of our CPU kernels, for a configuration of any size. They must be there."""
    trial = random_trial(shrink(config), Route.INTERFACE)
    pack(trial.loaded.model, NativeLinear)
    loaded = replace(trial.loaded, native=is_native(trial.loaded))
    return loaded.native and decodes_exactly(trial, build_runner(loaded, SIZES, "sdpa"))


@torch.no_grad()
def random_trial(tiny: Any, route: Route) -> Trial:
    """A random model of a configuration; the same one in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            tiny, attn_implementation="eager", dtype=torch.float32
        ).eval()
        prompt = torch.randint(0, VOCAB, (1, PROMPT))
        _spread(model)
        facts = model_facts(tiny)
        prompt_kv = torch.randn(facts.num_layers, 2, facts.num_kv_heads, PROMPTS, facts.head_dim)
        masks = torch.randn(MASKS, model.get_input_embeddings().weight.shape[1])
    expected = model.generate(
        prompt, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0
    )[0].tolist()
    if route is Route.INTERFACE:
        model.set_attn_implementation(NAME)
    cpu, kind = torch.device("cpu"), type(model).__name__
    loaded = LoadedModel(model, facts, route, kind, (), torch.float32, cpu)
    return Trial(loaded, expected, prompt_kv, masks)


@torch.inference_mode()
def decodes_exactly(trial: Trial, runner: ModelRunner) -> bool:
    """Whether tree decoding by a runner of the trial's model gives the tokens expected."""
    runner.set_adapter(0, trial.prompt_kv, trial.masks)
    return _decode(runner, trial.expected) == trial.expected


def _spread(model: Any) -> None:
    """Larger weights than the usual initialisation: distinct tokens, so that the test has power."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.mul_(3.0)


def _decode(runner: ModelRunner, expected: list[int]) -> list[int]:
    """Decode by comb trees; every third step drafts wrong, the others right somewhere."""
    topology = TreeTopology.comb(4, MASKS)
    tokens, past, step = expected[:PROMPT], 0, 0
    blocks = list(range(runner.storage.num_blocks))[::-1]
    while len(tokens) < len(expected):
        tree = topology.fill(tokens[-1], _drafts(expected, len(tokens), step))
        plan = SegmentPlan(tokens[past:-1], tree, past, blocks, 0)
        batch = ForwardBatch.build([plan], BLOCK, runner.storage.scratch_block, MASKS, 256)
        chosen: Tensor = runner.execute(batch).logits.argmax(dim=-1)
        acceptance = walk(tree, chosen.tolist())
        root = batch.segments[0].root
        rows = [*range(root + 1), *(root + node for node in acceptance.path)]
        target = [blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(past, past + len(rows))]
        runner.commit([int(batch.scratch_slots[row]) for row in rows], target)
        past += len(rows)
        tokens = tokens + acceptance.tokens(tree)
        step += 1
    return tokens[: len(expected)]


def _drafts(expected: list[int], start: int, step: int) -> list[list[int]]:
    tokens = []
    for depth in range(MASKS):
        right = expected[min(start + depth, len(expected) - 1)]
        wrong = [(right + 1 + i) % VOCAB for i in range(4)]
        place = (step + depth) % 2
        tokens.append(wrong if step % 3 == 2 else [*wrong[:place], right, *wrong[place:]])
    return tokens
