"""A drafter that knows the answer, wholly or in part."""

import random

from engine.sequence import Sequence
from engine.speculation.tree import DraftTree
from tests import factories


class OracleEngine:
    """Replaces the BiTA drafter by one that knows the answer, wholly or in part."""

    def __init__(self, expected: dict[str, list[int]], right: float) -> None:
        self.expected, self.right, self.rng = expected, right, random.Random(0)

    def patch(self, engine: factories.Engine) -> None:
        """Let the engine draft from the oracle."""
        draft = engine.drafting.draft

        def oracle(scheduled, batch, output, accepted):  # type: ignore[no-untyped-def]
            draft(scheduled, batch, output, accepted)
            for item, acceptance in zip(scheduled, accepted, strict=True):
                if acceptance is not None and item.sequence.draft is not None:
                    item.sequence.draft = self._filled(item.sequence)

        engine.drafting.draft = oracle  # type: ignore[method-assign]

    def _filled(self, sequence: Sequence) -> DraftTree:
        assert sequence.draft is not None
        done = sequence.num_generated
        answer = self.expected[sequence.request.request_id][done : done + 3]
        tokens = []
        for token in answer + [0] * (3 - len(answer)):
            row = [(token + 1 + i) % factories.VOCAB for i in range(5)]
            if self.rng.random() < self.right:
                row[self.rng.randrange(2)] = token
            tokens.append(row)
        return sequence.draft.topology.fill(sequence.token_ids[-1], tokens)
