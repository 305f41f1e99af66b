"""What a run will take, said before it starts: memory, disk and time."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from server.commands.adapters.common import bytes_text
from server.commands.encoder import before_the_assistant
from server.commands.tune.data import ANSWERS_AT_ONCE, Prompts

if TYPE_CHECKING:
    import torch

    from adapters.tuning.estimate import Disk, Memory, Trunk, Workload
    from adapters.tuning.prompts import Conversation
    from adapters.tuning.recipe import TuningRecipe
    from adapters.tuning.target import TargetModel
    from engine.answers import AnswerRate
    from engine.model.loaded import LoadedModel

PROBE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Sizes, read from the model's configuration and file headers; it need not be loaded."""

    prompts: Prompts
    recipe: TuningRecipe
    trunk: Trunk
    work: Workload
    memory: Memory
    free: int

    @classmethod
    def of(
        cls,
        options: argparse.Namespace,
        recipe: TuningRecipe,
        prompts: Prompts,
        device: torch.device,
    ) -> Forecast:
        """For this process. Raises UnsupportedModel where the model's folder is not one."""
        from adapters.tuning import estimate
        from engine.load import shape_of
        from engine.model.loader import pick_dtype, read_config
        from engine.model.memory import free_memory, weight_bytes

        config = read_config(options.model)
        dtype = pick_dtype(options.dtype, device)
        weights = weight_bytes(options.model, dtype)
        trunk = estimate.trunk(config.get_text_config(), shape_of(config), weights, dtype.itemsize)
        work = workload(prompts, prompts.plan.max_tokens)
        needed = estimate.memory(trunk, recipe, work)
        return cls(prompts, recipe, trunk, work, needed, free_memory(device))

    @property
    def fits(self) -> bool:
        """Whether the fullest moment has room."""
        return self.memory.peak <= self.free

    def show_sizes(self, out: Path) -> None:
        """Print memory and disk, and whether there is as much."""
        from adapters.tuning.estimate import disk

        _show_memory(self.memory, self.free, self.work.processes)
        needed = disk(self.trunk.shape, self.recipe, self.work)
        room = shutil.disk_usage(_folder(out)).free
        _show_disk(needed, room)
        if not self.fits:
            print("it may not fit: a smaller --batch, --groups or --max-length takes less memory")
        if needed.total > room:
            print(f"the disk has too little room for {out}")
        sys.stdout.flush()

    def show_time(self, loaded: LoadedModel, target: TargetModel) -> None:
        """Answer some of the prompts, take some steps, and print how long all will take.

        Several processes do it together, and the first one prints. The model is left with tuning's
        attention.
        """
        from adapters.tuning import parallel
        from adapters.tuning.estimate import Pace, duration, made_up, time_steps
        from adapters.tuning.target import NAME as TUNING
        from engine.attention.interface import NAME as SERVING
        from engine.model.memory import release

        loaded.model.set_attn_implementation(SERVING)
        rate = self._answer_rate(loaded)
        loaded.model.set_attn_implementation(TUNING)
        release(loaded.device)
        work, shape = workload(self.prompts, round(rate.length)), self.trunk.shape
        count = min(self.recipe.conversations, work.conversations)
        samples = made_up(count, max(4, work.tokens), shape.vocab_size)
        step, context = time_steps(target, shape, self.recipe, samples)
        release(loaded.device)
        if not parallel.leads():
            return
        needed = duration(self.recipe, work, Pace(step, context, rate.tokens_per_second))
        answers = f"answers of {rate.length:.0f} tokens, {rate.tokens_per_second:.0f} a second"
        rows = {
            answers: needed.answers,
            f"{self.recipe.steps} steps of {step:.2f} s": needed.training,
            "evaluation": needed.evaluation,
            "all": needed.total,
        }
        _show("time, by a short try", {name: time_text(value) for name, value in rows.items()})
        sys.stdout.flush()

    def _answer_rate(self, loaded: LoadedModel) -> AnswerRate:
        """Of the first batch of prompts."""
        from engine.answers import answer_rate
        from engine.config import EngineConfig
        from engine.engine import Engine

        plan = self.prompts.plan
        prompts = [_first(self.prompts, c) for c in self.prompts.learn[:ANSWERS_AT_ONCE]]
        fitting = [p for p in prompts if 0 < len(p) <= plan.max_length - plan.max_tokens] or [[0]]
        config = EngineConfig(model="", max_num_seqs=len(fitting), max_model_len=plan.max_length)
        return answer_rate(Engine(config, loaded, {}), fitting, plan.max_tokens, PROBE_SECONDS)


def workload(prompts: Prompts, answer: int) -> Workload:
    """What `prompts` come to, if each answer has `answer` tokens."""
    from adapters.tuning import parallel
    from adapters.tuning.estimate import Workload
    from adapters.tuning.generate import others_turns

    lengths, answers = [], 0
    for conversation in (*prompts.learn, *prompts.held_out):
        turns = others_turns(conversation.messages)
        length = len(_first(prompts, conversation))
        length += sum(prompts.encoder.count(m) for turn in turns[1:] for m in turn)
        said = max(0, min(len(turns) * answer, prompts.plan.max_length - length))
        answers += said
        lengths.append(min(length + said, prompts.plan.max_length))
    return Workload(
        conversations=len(prompts.learn),
        held_out=len(prompts.held_out),
        tokens=round(mean(lengths)),
        longest=max(lengths),
        answer_tokens=max(1, answers),
        processes=parallel.world(),
        at_once=ANSWERS_AT_ONCE,
        room=prompts.plan.max_length,
    )


def _first(prompts: Prompts, conversation: Conversation) -> list[int]:
    """Token ids up to the model's first answer."""
    messages = before_the_assistant(conversation.messages)
    return prompts.encoder.encode(messages, conversation.tools)


def _folder(out: Path) -> Path:
    """The first folder above that exists."""
    return next(place for place in (out, *out.absolute().parents) if place.is_dir())


def _show(title: str, rows: dict[str, str]) -> None:
    print(title)
    for name, value in rows.items():
        print(f"  {name:<44}{value:>12}")


def _show_memory(needed: Memory, room: int, processes: int) -> None:
    _show(
        "memory" if processes == 1 else f"memory of each of {processes} processes",
        {
            "weights": bytes_text(needed.weights),
            "while answering: K/V of conversations": bytes_text(needed.answers),
            "while training: contexts": bytes_text(needed.contexts),
            "while training: mask rows": bytes_text(needed.rows),
            "while training: trained tensors, optimiser": bytes_text(needed.optimizer),
            "at the fullest": bytes_text(needed.peak),
            "free": bytes_text(room),
        },
    )


def _show_disk(needed: Disk, room: int) -> None:
    _show(
        "disk",
        {
            "answers and log": bytes_text(needed.answers),
            "checkpoint": bytes_text(needed.checkpoint),
            "adapter": bytes_text(needed.adapter),
            "free": bytes_text(room),
        },
    )


def time_text(seconds: float) -> str:
    """A duration for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
