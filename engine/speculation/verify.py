"""Verification: walk the tree along the tokens that were chosen (design note sec. 3.5, 3.7).

A token has been chosen at every node from the model's own distribution there. Since the tree
never decides what is chosen, the emitted tokens have exactly the distribution (greedy: exactly
the tokens) of decoding one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.speculation.tree import DraftTree


@dataclass(frozen=True, slots=True)
class Acceptance:
    """path: accepted nodes below the root, in order. bonus_token: chosen at the last of them."""

    path: list[int]
    bonus_token: int

    def tokens(self, tree: DraftTree) -> list[int]:
        """The tokens this step emits."""
        return [*(tree.token_ids[node] for node in self.path), self.bonus_token]

    @property
    def last_node(self) -> int:
        """The node whose mask group drafts the next step."""
        return self.path[-1] if self.path else 0


def walk(tree: DraftTree, chosen: Sequence[int]) -> Acceptance:
    """Follow from the root the child equal to the choice; stop where there is none."""
    node, path = 0, []
    while (child := tree.child(node, chosen[node])) is not None:
        path.append(child)
        node = child
    return Acceptance(path, chosen[node])
