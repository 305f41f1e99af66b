"""The BiTA drafter: what the masks behind the last accepted node say may come next.

A group's masks were computed before the bonus token was known; now it is. `Branches` ranks the
children of tree nodes level by level, for all sequences at once: mask d's hidden state, led along
the node's own path by the adapter's successor head where it has one, through the frozen output
projection, or its part of the adapter's draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
class DraftHead:
    """What ranks an adapter's drafts.

    project: logits float32 `[rows, n]` of final hidden states `[rows, hidden]`.
    tokens: int64 `[n]`, whose logits they are; None for the whole vocabulary.
    guide: leads mask rows along a path; None where the adapter has no successor head.
    """

    project: Layer
    tokens: Tensor | None = None
    guide: Guide | None = None


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
        draft, and what its probabilities are worth.
    temperatures: of the logits, by depth (`HitProfile.temperatures`).
    """

    def __init__(
        self,
        groups: Sequence[MaskGroup],
        temperatures: Sequence[float],
        head: DraftHead,
    ) -> None:
        self.temperatures, self.head = temperatures, head
        self.roots = [group.bonus_token for group in groups]
        self.sizes = [len(group.hidden) for group in groups]
        self.trusts = [group.trust for group in groups]
        self._keys = [group.keys for group in groups]
        self._scales = [group.temperature for group in groups]
        self._firsts = [sum(self.sizes[:i]) for i in range(len(groups))]
        self._depth = 0
        self._hidden = torch.cat([group.hidden for group in groups])
        self._state: Tensor | None = None
        if head.guide is not None:
            masks = [mask for size in self.sizes for mask in range(size)]
            index = torch.tensor(masks, device=self._hidden.device)
            self._read = head.guide.successor.read_mask(index, self._hidden)

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """The `width` likeliest children of every parent, and their probabilities.

        parents: nodes of one depth, a level deeper in every call.
        """
        rows = [self._firsts[p.group] + self._depth for p in parents]
        numbers = [rows, [p.token for p in parents], [p.before for p in parents]]
        index, path, before = torch.tensor(numbers, device=self._hidden.device)
        hidden = self._hidden.index_select(0, index)
        if (guide := self.head.guide) is not None:
            mask, token = self._read.index_select(0, index), guide.read_token(path)
            state = None if self._state is None else self._state.index_select(0, before)
            hidden, self._state = guide.successor.advance(hidden, mask, token, state)
        logits = self.head.project(hidden) / self.temperatures[self._depth]
        keys = [self._keys[p.group][self._depth] for p in parents]
        scales = [self._scales[p.group] for p in parents]
        logits = perturbed(logits, keys, scales, self.head.tokens)
        self._depth += 1
        probabilities, tokens = logits.softmax(dim=-1).topk(width, dim=-1)
        if self.head.tokens is not None:
            tokens = self.head.tokens[tokens]
        return tokens.tolist(), probabilities.tolist()
