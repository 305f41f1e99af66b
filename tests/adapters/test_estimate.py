"""What a run is said to take, beside what it does take."""

from __future__ import annotations

import io
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor

from adapters.tuning import estimate
from adapters.tuning.estimate import Pace, Workload
from adapters.tuning.recipe import TuningRecipe
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import Tuner
from tests import factories
from tests.adapters import tiny

RECIPE = TuningRecipe(num_prompts=4, num_masks=3, conversations=4, groups=6, successor_rank=4)
WORK = Workload(
    conversations=40,
    held_out=5,
    tokens=50,
    longest=60,
    answer_tokens=900,
    processes=1,
    at_once=8,
    room=64,
)


def trunk() -> estimate.Trunk:
    config = tiny.llama().config
    weights = sum(p.nbytes for p in tiny.llama().parameters())
    return estimate.trunk(config, tiny.SHAPE, weights, 4)


def test_trained_tensors_and_their_checkpoint_are_counted_exactly() -> None:
    tuner = Tuner(TargetModel(tiny.llama()), tiny.SHAPE, RECIPE, tiny.noise(8))
    numbers = sum(p.numel() for p in tuner.parameters)
    assert estimate.trained_numbers(tiny.SHAPE, RECIPE) == numbers
    tuner.step()
    moments = sum(v.nbytes for s in tuner.optimizer.state.values() for v in s.values() if v.ndim)
    content = io.BytesIO()
    torch.save([tuner.parameters, tuner.optimizer.state_dict()], content)
    disk = estimate.disk(tiny.SHAPE, RECIPE, WORK)
    assert estimate.memory(trunk(), RECIPE, WORK).optimizer == 8 * numbers + moments
    assert disk.checkpoint / 2 == pytest.approx(12 * numbers)
    assert 12 * numbers < len(content.getvalue()) < 12 * numbers + 10_000


def test_what_a_step_keeps_for_its_gradients_is_near_the_estimate() -> None:
    """Counted by what autograd saves, shared storage once; the frozen weights are not its own."""
    samples = [tiny.answered(tiny.llama(), 1, seed, length=32)[0] for seed in range(4)]
    target = TargetModel(tiny.llama())
    tuner = Tuner(target, tiny.SHAPE, replace(RECIPE, dropout=0.0), samples)
    own = {p.untyped_storage().data_ptr() for p in target.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tuner.step()
    saved = sum(t.untyped_storage().nbytes() for t in kept.values())
    work = replace(WORK, conversations=4, longest=len(samples[0].token_ids))
    assert 0.6 < saved / estimate.memory(trunk(), RECIPE, work).rows < 1.4


def test_processes_share_conversations_and_steps() -> None:
    two = replace(WORK, processes=2)
    one, half = (estimate.memory(trunk(), RECIPE, work) for work in (WORK, two))
    assert half.weights == one.weights
    assert half.rows == one.rows / 2
    assert half.contexts == one.contexts / 2
    pace = Pace(step=1.0, context=0.1, answers=90.0)
    alone, together = (estimate.duration(RECIPE, work, pace) for work in (WORK, two))
    assert (alone.answers, together.answers) == (10, 5)
    assert alone.training == RECIPE.steps + 4
    assert together.training == RECIPE.steps + 2


@pytest.mark.parametrize("architecture", [*factories.INTERFACE])
def test_every_architecture_has_its_widths(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    sizes = estimate.trunk(model.config, tiny.SHAPE, 1, 4)
    widths = {prod(p.shape[:1]) for p in model.parameters()} | {
        p.shape[-1] for p in model.parameters()
    }
    experts = getattr(model.config, "num_experts_per_tok", None) or 1
    assert widths & {sizes.inner_width // experts, 2 * sizes.inner_width // experts}


def test_a_pace_is_measured() -> None:
    samples = estimate.made_up(4, 30, tiny.VOCAB)
    step, context = estimate.time_steps(TargetModel(tiny.llama()), tiny.SHAPE, RECIPE, samples)
    assert step > 0
    assert context > 0
