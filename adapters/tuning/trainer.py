"""Bi-directional tuning: cross-entropy on mask rows, nothing else of the model moves."""

from __future__ import annotations

import io
import json
import math
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from adapters.errors import AdapterError
from adapters.format import BaseShape
from adapters.successor import Successor
from adapters.tuning import files, parallel
from adapters.tuning.finite import check_finite
from adapters.tuning.layout import IGNORE, Sample, mask_groups
from adapters.tuning.recipe import TuningRecipe
from adapters.tuning.target import Context, TargetModel

UNREADABLE = (OSError, EOFError, pickle.UnpicklingError)
CHECKPOINT_EVERY = 50
CONTEXT_CACHE_BYTES = 4 << 30


class Tuner:
    """The two trainable tensors and their optimiser.

    prompt_kv: float32 `[layers, 2, kv_heads, prompts, head_dim]`.
    mask_embeddings: float32 `[masks, hidden]`.
    Raises AdapterError where no sample has an anchor.
    """

    def __init__(
        self, target: TargetModel, shape: BaseShape, recipe: TuningRecipe, samples: Sequence[Sample]
    ) -> None:
        self.target, self.recipe = target, recipe
        self.samples = [s for s in samples if s.anchors()]
        if not self.samples:
            raise AdapterError("nothing to learn from: no whole answer has two tokens or more")
        if min(recipe.conversations, len(self.samples)) < parallel.world():
            raise AdapterError(f"{parallel.world()} processes need a conversation each in a step")
        generator = torch.Generator().manual_seed(recipe.seed)
        kv = (shape.num_layers, 2, shape.num_kv_heads, recipe.num_prompts, shape.head_dim)
        prompts = torch.randn(kv, generator=generator) * recipe.prompt_std
        mean, spread = target.token_statistics()
        noise = torch.randn(recipe.num_masks, len(mean), generator=generator)
        masks = mean + noise * spread * recipe.mask_noise
        self.prompt_kv = nn.Parameter(prompts.to(target.device))
        self.mask_embeddings = nn.Parameter(masks.to(target.device))
        self.successor = self._successor(shape.hidden_size, generator)
        embeddings = [self.prompt_kv, self.mask_embeddings]
        head = list(self.successor.tensors().values()) if self.successor is not None else []
        self.parameters: list[Tensor] = [*embeddings, *head]
        self.rates = [recipe.learning_rate, recipe.successor_rate]
        groups = [{"params": part} for part in (embeddings, head)]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self.steps_done = 0
        self.contexts = Contexts(target, CONTEXT_CACHE_BYTES)

    def _successor(self, hidden: int, generator: torch.Generator) -> Successor | None:
        """Starts without effect: what it adds is zero."""
        rank, device = self.recipe.successor_rank, self.target.device
        if not rank:
            return None
        tensors = {}
        for name, shape in Successor.shapes(hidden, self.recipe.num_masks, rank).items():
            fresh = torch.zeros(shape)
            if name not in ("bias", "out"):
                fresh = torch.randn(shape, generator=generator) / math.sqrt(shape[0])
            tensors[name] = nn.Parameter(fresh.to(device))
        return Successor(**tensors)

    def fit(self, folder: Path) -> None:
        """Train to the recipe's last step; a run begun in `folder` before goes on from there.

        Raises AdapterError where that run is of another recipe, where its checkpoint cannot be
        read, or where nothing can be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            self._restore(checkpoint)
        quiet = not parallel.leads()
        bar = tqdm(
            total=self.recipe.steps,
            initial=self.steps_done,
            desc="tune",
            unit="step",
            disable=quiet,
        )
        smooth: list[tuple[float, float]] = []
        with bar:
            while self.steps_done < self.recipe.steps:
                started = time.monotonic()
                loss, hits = self.step()
                smooth = [*smooth[-24:], (loss, hits)]
                means = [sum(column) / len(smooth) for column in zip(*smooth, strict=True)]
                bar.set_postfix(loss=f"{means[0]:.3f}", hits_at_depth_1=f"{means[1]:.3f}")
                bar.update()
                record = {"step": self.steps_done, "loss": loss, "hits_at_depth_1": hits}
                record["seconds"] = time.monotonic() - started
                if quiet:
                    continue
                files.append(folder / "log.jsonl", json.dumps(record) + "\n")
                if self.steps_done % CHECKPOINT_EVERY == 0 or self.steps_done == self.recipe.steps:
                    self._save(checkpoint)

    def step(self) -> tuple[float, float]:
        """One optimiser step; its loss in nats and the rate of right first guesses at depth 1."""
        recipe = self.recipe
        rate = 0.5 * (1 + math.cos(math.pi * self.steps_done / recipe.steps))
        for group, peak in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = peak * rate
        rng = np.random.default_rng((recipe.seed, self.steps_done))
        torch.manual_seed(recipe.seed * 1_000_003 + self.steps_done)  # dropout
        samples, anchors = self._draw(rng)
        prompts = functional.dropout(self.prompt_kv, recipe.dropout)
        logits, labels = run_groups(
            self.target,
            samples,
            anchors,
            prompts,
            self.mask_embeddings,
            self.contexts,
            self.successor,
        )
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        loss.backward()
        loss = parallel.average_gradients(self.parameters, loss, (labels != IGNORE).sum())
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        check_finite(self.steps_done, loss.item(), norm.item())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_done += 1
        first = labels[:, :: recipe.num_masks]
        right = logits[:, :: recipe.num_masks].argmax(dim=-1)[first != IGNORE]
        return loss.item(), (right == first[first != IGNORE]).float().mean().item()

    def _draw(self, rng: np.random.Generator) -> tuple[list[Sample], list[list[int]]]:
        """Samples of like length, each with its anchors, spread over the model's own answers."""
        ordered = sorted(self.samples, key=lambda s: len(s.token_ids))
        count = min(self.recipe.conversations, len(ordered))
        # A slice around any sample, so that the shortest and longest are drawn like the others.
        first = int(rng.integers(0, len(ordered))) - int(rng.integers(0, count))
        first = min(max(first, 0), len(ordered) - count)
        samples, anchors = ordered[first : first + count], []
        mine = parallel.shard(first)
        for sample in samples:
            places = sample.anchors()
            size = min(self.recipe.groups, len(places))
            anchors.append(sorted(rng.choice(places, size, replace=False).tolist()))
        return samples[mine], anchors[mine]

    def _save(self, file: Path) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": self.steps_done,
            "parameters": [p.detach() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        files.replace(file, content.getvalue())

    def _restore(self, file: Path) -> None:
        try:
            state = torch.load(file, map_location=self.target.device, weights_only=True)
            files.check_same(file, state["recipe"], asdict(self.recipe))
            with torch.no_grad():
                for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                    parameter.copy_(saved)
            self.optimizer.load_state_dict(state["optimizer"])
            self.steps_done = int(state["step"])
        except (
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            KeyError,
            pickle.UnpicklingError,
        ) as error:
            reason = str(error).partition("\n")[0]
            raise AdapterError(f"{file} is damaged ({reason}): remove it to start anew") from error


class Contexts:
    """K/V of samples' real tokens. They never change, so as many as fit `limit` bytes are kept."""

    def __init__(self, target: TargetModel, limit: int) -> None:
        self.target, self.room = target, limit
        self._kept: dict[int, tuple[Sample, Context]] = {}

    def of(self, samples: Sequence[Sample]) -> Context:
        """The contexts of a batch, padded at the right to the longest sample."""
        fresh = [s for s in samples if id(s) not in self._kept]
        found = {id(s): self._kept[id(s)][1] for s in samples if id(s) in self._kept}
        if fresh:
            padded = self.target.context(_padded(fresh).to(self.target.device))
            for row, sample in enumerate(fresh):
                found[id(sample)] = self._keep(sample, padded, row)
        width = max(len(s.token_ids) for s in samples)
        layers = range(len(found[id(samples[0])].keys))
        return Context(
            [_stack([found[id(s)].keys[layer] for s in samples], width) for layer in layers],
            [_stack([found[id(s)].values[layer] for s in samples], width) for layer in layers],
        )

    def _keep(self, sample: Sample, padded: Context, row: int) -> Context:
        length = len(sample.token_ids)
        own = Context(
            [k[row, :, :length].clone() for k in padded.keys],
            [v[row, :, :length].clone() for v in padded.values],
        )
        size = sum(t.nbytes for t in own.keys + own.values)
        if size <= self.room:
            self.room -= size
            self._kept[id(sample)] = (sample, own)
        return own


def _stack(tensors: list[Tensor], width: int) -> Tensor:
    """`[kv_heads, tokens, dim]` of several samples as `[samples, kv_heads, width, dim]`."""
    return torch.stack([functional.pad(t, (0, 0, 0, width - t.shape[1])) for t in tensors])


def _padded(samples: Sequence[Sample]) -> Tensor:
    width = max(len(s.token_ids) for s in samples)
    return torch.tensor([s.token_ids + [0] * (width - len(s.token_ids)) for s in samples])


def run_groups(
    target: TargetModel,
    samples: Sequence[Sample],
    anchors: Sequence[Sequence[int]],
    prompt_kv: Tensor,
    mask_embeddings: Tensor,
    contexts: Contexts,
    successor: Successor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits float32 `[samples, rows, vocab]` and labels int64 `[samples, rows]` of all groups.

    The successor head follows the path of true tokens, as it will follow the accepted one.
    """
    masks = len(mask_embeddings)
    groups = mask_groups(samples, anchors, masks)
    count = groups.labels.shape[1] // masks
    embeddings = mask_embeddings.repeat(count, 1).expand(len(samples), -1, -1)
    hidden = target.masks(
        contexts.of(samples),
        embeddings.to(target.dtype),
        groups.positions.to(target.device),
        groups.visible.to(target.device),
        prompt_kv,
    )
    if successor is not None:
        hidden = _follow(target, successor, hidden, groups.previous.to(target.device), masks)
    return target.project(hidden), groups.labels.to(target.device)


def _follow(
    target: TargetModel, successor: Successor, hidden: Tensor, previous: Tensor, masks: int
) -> Tensor:
    """`hidden` `[samples, rows, hidden]` corrected along each group's known tokens."""
    tokens = successor.read_token(target.embedding(previous)).unflatten(1, (-1, masks))
    grouped, state, corrected = hidden.unflatten(1, (-1, masks)), None, []
    read = successor.read_mask(torch.arange(masks, device=hidden.device), grouped)
    for mask in range(masks):
        refined, state = successor.advance(
            grouped[:, :, mask], read[:, :, mask], tokens[:, :, mask], state
        )
        corrected.append(refined)
    return torch.stack(corrected, dim=2).flatten(1, 2)
