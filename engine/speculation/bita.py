"""The BiTA drafter: what the masks behind the last accepted node say may come next.

A group's masks were computed before the bonus token was known; now it is. `Branches` ranks the
children of tree nodes level by level, for all sequences at once: mask d's hidden state, led along
the node's own path by the adapter's successor head where it has one, through the frozen output
projection, or its part of the adapter's draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from adapters.successor import Successor
from engine.sampling.sampler import Key, perturbed

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Guide:
    """A successor head. read_token: as its own, of token ids, int64 `[rows]`."""

    successor: Successor
    read_token: Layer


@dataclass(frozen=True, slots=True)
class Level:
    """Parents whose children are wanted, all of one depth; every list has an entry of each.

    rows: of their masks among all groups'. path: the tokens they carry. before: number of their own
    parent in the level above; 0 for a root. keys, scales: of the noise on their children's logits,
    and what multiplies it.
    temperature: of the logits, before that noise.
    """

    rows: Sequence[int]
    path: Sequence[int]
    before: Sequence[int]
    keys: Sequence[Key | None]
    scales: Sequence[float]
    temperature: float


Ranked: TypeAlias = tuple[list[list[int]], list[list[float]]]
"""The likeliest children of every parent, and their probabilities."""


class Descent(Protocol):
    """Levels below some masks, one a call, from the roots down."""

    def rank(self, level: Level, width: int) -> Ranked:
        """The `width` likeliest children of every parent of the next level."""
        ...


class Head(Protocol):
    """What ranks an adapter's drafts."""

    def descend(self, hidden: Tensor, masks: Sequence[int]) -> Descent:
        """Begin below masks.

        hidden: their final hidden states, `[masks, hidden]`. masks: each one's number in its group.
        """
        ...


@dataclass(frozen=True, slots=True)
class DraftHead:
    """A `Head` of torch's operations.

    project: logits float32 `[rows, n]` of final hidden states `[rows, hidden]`.
    tokens: int64 `[n]`, whose logits they are; None for the whole vocabulary.
    guide: leads mask rows along a path; None where the adapter has no successor head.
    """

    project: Layer
    tokens: Tensor | None = None
    guide: Guide | None = None

    def descend(self, hidden: Tensor, masks: Sequence[int]) -> Descent:
        """As `Head.descend`."""
        return _Descent(self, hidden, masks)


class _Descent:
    """As `Descent`."""

    def __init__(self, head: DraftHead, hidden: Tensor, masks: Sequence[int]) -> None:
        self._head, self._hidden = head, hidden
        self._state: Tensor | None = None
        if head.guide is not None:
            index = torch.tensor(masks, device=hidden.device)
            self._read = head.guide.successor.read_mask(index, hidden)

    def rank(self, level: Level, width: int) -> Ranked:
        """As `Descent.rank`."""
        numbers = [level.rows, level.path, level.before]
        index, path, before = torch.tensor(numbers, device=self._hidden.device)
        hidden = self._hidden.index_select(0, index)
        if (guide := self._head.guide) is not None:
            mask, token = self._read.index_select(0, index), guide.read_token(path)
            state = None if self._state is None else self._state.index_select(0, before)
            hidden, self._state = guide.successor.advance(hidden, mask, token, state)
        logits = self._head.project(hidden) / level.temperature
        logits = perturbed(logits, level.keys, level.scales, self._head.tokens)
        probabilities, tokens = logits.softmax(dim=-1).topk(width, dim=-1)
        if self._head.tokens is not None:
            tokens = self._head.tokens[tokens]
        return tokens.tolist(), probabilities.tolist()


@dataclass(frozen=True, slots=True)
class MaskGroup:
    """hidden: final hidden states of the masks, `[masks, hidden]`. bonus_token: the next root.

    keys: of the noise that will choose the token at each mask's depth, None of greedy requests.
    temperature: of the request's logits, before that noise.
    trust: what the request makes of their probabilities (`trust.Trust`).
    """

    hidden: Tensor
    bonus_token: int
    keys: Sequence[Key | None]
    temperature: float = 0.0
    trust: float = 1.0


@dataclass(frozen=True, slots=True)
class Parent:
    """A node whose children are wanted.

    group: number of its tree's mask group. token: what it carries.
    before: number of its own parent in the call that ranked the node itself; 0 for a root.
    """

    group: int
    token: int
    before: int


class Branches:
    """Children of the nodes of several draft trees, one level a call, from the roots down.

    roots, sizes, trusts: of every group, its bonus token, its number of masks, which is how deep to
        draft, and what its probabilities are worth. levels: ranked by now.
    temperatures: of the logits, by depth (`HitProfile.temperatures`).
    """

    def __init__(
        self, groups: Sequence[MaskGroup], temperatures: Sequence[float], head: Head
    ) -> None:
        self.temperatures = temperatures
        self.roots = [group.bonus_token for group in groups]
        self.sizes = [len(group.hidden) for group in groups]
        self.trusts = [group.trust for group in groups]
        self._keys = [group.keys for group in groups]
        self._scales = [group.temperature for group in groups]
        self._firsts = [sum(self.sizes[:i]) for i in range(len(groups))]
        self.levels = 0
        masks = [mask for size in self.sizes for mask in range(size)]
        hidden = [group.hidden for group in groups]
        self._descent = head.descend(torch.cat(hidden) if hidden[1:] else hidden[0], masks)

    def rank(self, parents: Sequence[Parent], width: int) -> Ranked:
        """The `width` likeliest children of every parent, and their probabilities.

        parents: nodes of one depth, a level deeper in every call.
        """
        depth = self.levels
        self.levels += 1
        level = Level(
            rows=[self._firsts[parent.group] + depth for parent in parents],
            path=[parent.token for parent in parents],
            before=[parent.before for parent in parents],
            keys=[self._keys[parent.group][depth] for parent in parents],
            scales=[self._scales[parent.group] for parent in parents],
            temperature=self.temperatures[depth],
        )
        return self._descent.rank(level, width)
