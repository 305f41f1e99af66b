"""Sessions: the same for every side, and no two alike at the beginning."""

from pathlib import Path

import pytest

from benchmarks.sessions import Workload, user_name
from benchmarks.workloads.conversations import MAX_PROMPT, Conversations, ToolCalls
from benchmarks.workloads.texts import Code, edited
from models import DEFAULT_MODEL

MODEL = Path(DEFAULT_MODEL)


@pytest.mark.parametrize("make", [Conversations, ToolCalls, Code])
def test_a_session_is_always_the_same_and_like_no_other(make: type[Workload]) -> None:
    workload = make(MODEL)  # type: ignore[call-arg]
    first, again, later = (workload.session(n).advance() for n in (3, 3, 3 + 48 * 5))
    assert first is not None
    assert later is not None
    assert first == again
    assert user_name(3) in first.prompt
    assert user_name(3) not in later.prompt
    assert workload_ids(workload, first.prompt) == first.token_ids


def workload_ids(workload: Workload, prompt: str) -> list[int]:
    ids: list[int] = workload.renderer.call(prompt).token_ids  # type: ignore[attr-defined]
    return ids


def test_no_two_users_have_the_same_name() -> None:
    assert len({user_name(n) for n in range(500)}) == 500


def test_a_conversation_goes_on_from_what_was_answered() -> None:
    session = Conversations(MODEL, turns=2).session(0)
    first = session.advance()
    session.answer("What date?")
    second = session.advance()
    assert first is not None
    assert second is not None
    assert second.prompt.startswith(f"{first.prompt}What date?")
    session.answer("Fine.")
    assert session.advance() is None


def test_an_edit_changes_about_its_share_of_words_by_seed() -> None:
    text = " ".join(f"w{i}" for i in range(1000))
    changed = edited(text, 0.1, seed=1).split()
    assert len(changed) == 1000
    assert 70 <= sum(a != b for a, b in zip(text.split(), changed, strict=True)) <= 130
    assert edited(text, 0.1, seed=1) == edited(text, 0.1, seed=1) != edited(text, 0.1, seed=2)


def test_no_function_call_has_a_prompt_that_leaves_no_room_for_it() -> None:
    workload = ToolCalls(MODEL)
    for number in range(len(workload.places)):
        call = workload.session(number).advance()
        assert call is not None
        # Names differ by a few tokens.
        assert len(call.token_ids) <= MAX_PROMPT + 8
