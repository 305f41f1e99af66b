"""Sessions on our engine without a server: who is answered goes on, and nobody waits."""

from __future__ import annotations

from benchmarks.in_process import Ours
from benchmarks.sessions import Call
from tests import factories


class Words:
    """Token ids as text."""

    def decode(self, ids: list[int]) -> str:
        """Numbers, with spaces between."""
        return " ".join(map(str, ids))


class Talk:
    """A session of calls of so many tokens; its answers are in the next prompts."""

    def __init__(self, first: int, lengths: list[int]) -> None:
        self.prompt, self.lengths = [first], list(lengths)
        self.answers: list[list[int]] = []

    def advance(self) -> Call | None:
        """As `Session.advance`."""
        if not self.lengths:
            return None
        return Call("", list(self.prompt), self.lengths.pop(0), ignore_eos=True)

    def answer(self, text: str) -> None:
        """As `Session.answer`."""
        self.answers.append([int(word) for word in text.split()])
        self.prompt += [*self.answers[-1], 1]


def side() -> Ours:
    model = factories.tiny_model("Llama")
    return Ours(factories.engine(factories.load(model, "Llama")), speculation=False)


LENGTHS = ([7, 3], [2, 2, 2], [], [12], [1, 5])


def test_every_call_is_answered_as_it_is_alone() -> None:
    talks = [Talk(i + 1, lengths) for i, lengths in enumerate(LENGTHS)]
    total = side().play(talks, 2, Words())  # type: ignore[arg-type]
    assert total == sum(map(sum, LENGTHS))
    for i, lengths in enumerate(LENGTHS):
        alone = Talk(i + 1, lengths)
        side().play([alone], 1, Words())  # type: ignore[arg-type]
        assert talks[i].answers == alone.answers
        assert [len(answer) for answer in alone.answers] == lengths


def test_no_more_run_at_once_than_are_asked_for() -> None:
    ours, most = side(), 0
    step = ours.engine.step

    def watched() -> list[object]:
        nonlocal most
        most = max(most, len(ours.engine.sequences))
        return step()  # type: ignore[return-value]

    ours.engine.step = watched  # type: ignore[method-assign, assignment]
    ours.play([Talk(i + 1, [4, 4]) for i in range(7)], 3, Words())  # type: ignore[arg-type]
    assert most == 3
    assert not ours.engine.has_work
