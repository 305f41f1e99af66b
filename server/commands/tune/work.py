"""A run of `bita tune`: forecast, answers, training, evaluation, export and receipt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from server.commands.adapters.listing import hit_table
from server.commands.tune import data

if TYPE_CHECKING:
    from adapters.format import BitaAdapter
    from adapters.tuning.layout import Sample
    from adapters.tuning.recipe import TuningRecipe
    from engine.model.loaded import LoadedModel


def tune(options: argparse.Namespace) -> int:
    """Do it, or only say what it takes; the exit status.

    Raises AdapterError or EngineError for what stands in the way. What can be known without the
    model is checked before it is loaded.
    """
    from adapters.errors import AdapterError
    from adapters.format import MIN_DRAFT_TOKENS
    from adapters.tuning import parallel
    from adapters.tuning.draft_vocabulary import most_used
    from adapters.tuning.evaluate import evaluate
    from adapters.tuning.export import export
    from adapters.tuning.files import begin
    from adapters.tuning.target import NAME as TUNING
    from adapters.tuning.target import TargetModel
    from adapters.tuning.trainer import Tuner
    from engine.attention.interface import NAME as SERVING
    from engine.load import base_shape
    from engine.model.loader import load_model, pick_device, pick_dtype
    from server.commands.tune.forecast import Forecast

    recipe = recipe_of(options)
    if options.draft_vocabulary < MIN_DRAFT_TOKENS:
        raise AdapterError(f"--draft-vocabulary must be at least {MIN_DRAFT_TOKENS}")
    device = pick_device(parallel.join(options.device))
    prompts = data.read(options)
    forecast = Forecast.of(options, recipe, prompts, device)
    if parallel.leads():
        forecast.show_sizes(options.out)
    if options.estimate and not forecast.fits:
        return 1
    folder, fresh = options.out / "run", False
    if parallel.leads() and not options.estimate:
        dtype = str(pick_dtype(options.dtype, device))
        fresh = begin(folder, prompts.origin(options.model, dtype))
    loaded = load_model(options.model, str(device), options.dtype, trained=True)
    target = TargetModel(loaded.model)  # refuses what cannot be tuned before hours of answers
    if options.estimate or parallel.of_leader(fresh):
        forecast.show_time(loaded, target)
    if options.estimate:
        return 0
    loaded.model.set_attn_implementation(SERVING)
    learn, held_out = data.answers(prompts, loaded, folder, recipe.num_masks)
    loaded.model.set_attn_implementation(TUNING)
    tuner = Tuner(target, base_shape(loaded), recipe, learn)
    tuner.fit(folder)
    if not parallel.leads():
        return 0
    trained = (tuner.prompt_kv, tuner.mask_embeddings)
    drafting = (
        tuner.successor,
        most_used(learn, options.draft_vocabulary, loaded.facts.vocab_size),
    )
    evaluation = evaluate(target, held_out, *trained, recipe.ranks, *drafting)
    adapter = export(options.out, base_shape(loaded), recipe, evaluation, *trained, *drafting)
    _show(adapter)
    loaded.model.set_attn_implementation(SERVING)
    return _receipt(loaded, adapter, held_out, options.max_tokens)


def recipe_of(options: argparse.Namespace) -> TuningRecipe:
    """The recipe that the options ask for; raises AdapterError that names a value out of range."""
    from adapters.tuning.recipe import TuningRecipe

    return TuningRecipe(
        num_prompts=options.prompt_tokens,
        num_masks=options.masks,
        steps=options.steps,
        conversations=options.batch,
        groups=options.groups,
        learning_rate=options.learning_rate,
        successor_rank=options.successor_rank,
        seed=options.seed,
    )


def _show(adapter: BitaAdapter) -> None:
    from rich.console import Console

    console = Console()
    console.print(hit_table(adapter.config.profile))
    length = adapter.config.tuning["acceptance_length_comb"]
    console.print(f"acceptance length of the paper's comb: {length:.2f} tokens a forward")


def _receipt(
    loaded: LoadedModel, adapter: BitaAdapter, held_out: list[Sample], max_tokens: int
) -> int:
    """Serve held-out prompts with the adapter; their plain answers are known already."""
    from engine.answers import EngineAnswers
    from engine.config import EngineConfig
    from engine.engine import Engine

    engine = Engine(EngineConfig(model="", tree="comb"), loaded, {"new": adapter})
    spans = [(s.token_ids, *s.spans[0]) for s in held_out if s.spans][:16]
    prompts = [ids[:start] for ids, start, _ in spans]
    answers = EngineAnswers(engine).answers(prompts, max_tokens)
    same = sum(a == ids[start:end] for a, (ids, start, end) in zip(answers, spans, strict=True))
    mean = engine.stats().speculation.mean_acceptance_length
    print(
        f"with the adapter, {same} of {len(spans)} held-out answers are token for token those of "
        f"plain decoding; {mean:.2f} tokens a forward"
    )
    return 0 if same == len(spans) or loaded.dtype.itemsize < 4 else 1
