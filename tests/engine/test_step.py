"""The order of what a step does."""

from __future__ import annotations

import pytest

from tests import factories


@pytest.fixture
def engine() -> factories.Engine:
    model = factories.tiny_model("Llama")
    adapters = {"bita": factories.random_adapter(model)}
    return factories.engine(factories.load(model, "Llama"), adapters)


def test_tokens_are_told_before_anything_is_drafted_behind_them(engine: factories.Engine) -> None:
    (request,) = factories.requests([[1, 2, 3]])
    engine.add(request)
    assert [output.token_ids for output in engine.step()]
    sequence = engine.sequences[request.request_id]
    assert sequence.draft is None
    engine.step()
    assert sequence.draft is not None
    assert sequence.receipt.num_draft_tokens == sequence.draft.num_drafts > 0


def test_nothing_is_drafted_for_who_left_since_the_last_step(engine: factories.Engine) -> None:
    leaves, stays = factories.requests([[1, 2, 3], [4, 5]])
    for request in (leaves, stays):
        engine.add(request)
    engine.step()
    sequences = dict(engine.sequences)
    engine.abort(leaves.request_id)
    engine.step()
    assert sequences[leaves.request_id].draft is None
    assert sequences[stays.request_id].draft is not None
