"""The tuner: it learns, it leaves the trunk alone, and a resumed run is the uninterrupted one."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.errors import AdapterError
from adapters.tuning import files
from adapters.tuning.evaluate import evaluate
from adapters.tuning.layout import Sample
from adapters.tuning.recipe import TuningRecipe
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import Tuner
from tests.adapters import tiny

RECIPE = TuningRecipe(num_prompts=4, steps=6, conversations=4, groups=5, ranks=5)


def tuner(recipe: TuningRecipe = RECIPE, samples: list[Sample] | None = None) -> Tuner:
    target = TargetModel(tiny.llama())
    return Tuner(target, tiny.SHAPE, recipe, tiny.noise(12) if samples is None else samples)


def test_tuning_beats_the_untrained_adapter_on_held_out_answers() -> None:
    model = tiny.llama()
    learn, held_out = tiny.answered(model, 64), tiny.answered(model, 16, seed=1)
    recipe = replace(RECIPE, steps=60, conversations=8, groups=12)
    one = Tuner(TargetModel(model), tiny.SHAPE, recipe, learn)
    untrained = evaluate(one.target, held_out, one.prompt_kv, one.mask_embeddings, 5)
    for _ in range(recipe.steps):
        one.step()
    tuned = evaluate(one.target, held_out, one.prompt_kv, one.mask_embeddings, 5)
    assert tuned.profile.rates[0][0] > untrained.profile.rates[0][0] + 0.1
    assert tuned.acceptance_length > untrained.acceptance_length + 0.1


def test_the_trunk_does_not_move() -> None:
    one = tuner()
    before = {k: v.clone() for k, v in one.target.model.state_dict().items()}
    first = one.prompt_kv.detach().clone(), one.mask_embeddings.detach().clone()
    one.step()
    assert all(torch.equal(v, before[k]) for k, v in one.target.model.state_dict().items())
    assert not torch.equal(first[0], one.prompt_kv)
    assert not torch.equal(first[1], one.mask_embeddings)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = tuner()
    whole.fit(tmp_path / "whole")
    begun = tuner()
    for _ in range(3):
        begun.step()
    (tmp_path / "cut").mkdir()
    begun._save(tmp_path / "cut" / "checkpoint.pt")
    resumed = tuner()
    resumed.fit(tmp_path / "cut")
    assert resumed.steps_done == RECIPE.steps
    assert torch.allclose(resumed.prompt_kv, whole.prompt_kv, atol=1e-5)
    assert torch.allclose(resumed.mask_embeddings, whole.mask_embeddings, atol=1e-5)
    lines = (tmp_path / "cut" / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [4, 5, 6]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    tuner().fit(tmp_path)
    again = tuner()
    again.fit(tmp_path)
    assert again.steps_done == RECIPE.steps
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == RECIPE.steps


@pytest.mark.parametrize(
    "change", [{"num_prompts": 5}, {"steps": 9}, {"seed": 1}, {"learning_rate": 0.1}]
)
def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    tuner().fit(tmp_path)
    with pytest.raises(AdapterError, match=r"checkpoint\.pt.*run that differs in"):
        tuner(replace(RECIPE, **change)).fit(tmp_path)


def test_the_learning_rate_falls_as_a_cosine() -> None:
    one = tuner()
    rates = []
    for _ in range(RECIPE.steps):
        one.step()
        rates.append(one.optimizer.param_groups[0]["lr"])
    assert rates[0] == RECIPE.learning_rate
    assert rates[3] == pytest.approx(RECIPE.learning_rate / 2)
    assert rates == sorted(rates, reverse=True)


def test_an_epoch_of_odd_samples_gives_finite_losses() -> None:
    """Two answers a text, some of two tokens; padding and missing labels must not count."""
    one = tuner(replace(RECIPE, dropout=0.0), [s for s in tiny.noise(9) if s.anchors()])
    assert all(torch.isfinite(torch.tensor(one.step()[0])) for _ in range(4))


@pytest.mark.parametrize("samples", [[], [Sample([1, 2, 3], [(2, 3)])]])
def test_nothing_to_learn_from_is_said(samples: list[Sample]) -> None:
    with pytest.raises(AdapterError, match="two tokens"):
        tuner(samples=samples)


@pytest.mark.parametrize(
    "field", ["num_prompts", "num_masks", "steps", "conversations", "groups", "ranks"]
)
def test_a_recipe_names_the_field_out_of_range(field: str) -> None:
    with pytest.raises(AdapterError, match=field):
        replace(RECIPE, **{field: 0})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_anything_is_updated(
    tmp_path: Path, value: float
) -> None:
    one = tuner()
    one.fit(tmp_path)
    before = [p.detach().clone() for p in one.parameters]
    one.target.head.weight.data[0, 0] = value
    with pytest.raises(AdapterError, match=r"step 7: the loss is nan and the gradient nan"):
        one.step()
    assert all(torch.equal(p, b) for p, b in zip(one.parameters, before, strict=True))
    tuner().fit(tmp_path)  # what was written is whole and finite


@pytest.mark.parametrize("name", ["checkpoint.pt", "log.jsonl"])
def test_a_full_disk_ends_training_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The last checkpoint stays, and with room again the run ends as if nothing had been."""
    whole = tuner()
    whole.fit(tmp_path / "whole")
    write = getattr(files, "replace" if name == "checkpoint.pt" else "append")

    def full(file: Path, content: Any) -> None:
        with files.writing(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, write.__name__, full)
    with pytest.raises(AdapterError, match=rf"{name} cannot be written: No space left on device"):
        tuner().fit(tmp_path / "run")
    monkeypatch.setattr(files, write.__name__, write)
    resumed = tuner()
    resumed.fit(tmp_path / "run")
    assert torch.equal(resumed.prompt_kv, whole.prompt_kv)


def test_a_quantised_trunk_is_tuned() -> None:
    target = TargetModel(tiny.quantised(tiny.llama().bfloat16()))
    one = Tuner(target, tiny.SHAPE, RECIPE, tiny.noise(6))
    assert all(torch.isfinite(torch.tensor(one.step()[0])) for _ in range(2))
    assert {p.dtype for p in one.parameters} == {torch.float32}
