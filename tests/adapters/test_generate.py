"""Self-generated answers: turns, what is dropped, sampled shares, and the file they are kept in."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterError
from adapters.tuning import files
from adapters.tuning.generate import Answering, check_answers, generate
from adapters.tuning.layout import Sample
from adapters.tuning.prompts import Conversation
from tests.adapters import tiny

ANSWERING = Answering(max_tokens=20, max_length=200)


def asks(*turns: int) -> Conversation:
    """A user who says one token a turn."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += [{"role": "user", "content": [turn]}, {"role": "assistant", "content": []}]
    return Conversation(messages)


def render(messages: list[dict[str, Any]], _: object) -> list[int]:
    return [token for message in messages for token in message["content"]]


def answered(
    file: Path,
    conversations: list[Conversation],
    answering: Answering = ANSWERING,
    source: tiny.Successor | None = None,
) -> list[Sample]:
    decode: Any = list  # these messages hold tokens, not text
    return generate(
        conversations, source or tiny.Successor(), render, decode, file, answering, "answers"
    )


def test_later_turns_follow_the_models_own_answers(tmp_path: Path) -> None:
    (sample,) = answered(tmp_path / "a", [asks(44, 45)])
    assert sample == Sample([44, 45, 46, 47, 0, 45, 46, 47, 0], [(1, 5), (6, 9)])


def test_an_answer_cut_off_ends_its_conversation_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    conversation = asks(44, 3, 46)
    (dropped,) = answered(tmp_path / "a", [conversation])
    assert dropped.spans == [(1, 5)]
    (kept,) = answered(tmp_path / "b", [conversation], replace(ANSWERING, keep_cut=True))
    assert kept.spans == [(1, 5), (6, 26)]


def test_the_share_of_sampled_conversations_is_spread_evenly() -> None:
    answering = replace(ANSWERING, temperature=0.8, sampled_share=0.25)
    heat = [answering.temperature_of(number) for number in range(8)]
    assert heat == [0, 0, 0, 0.8, 0, 0, 0, 0.8]
    assert {replace(answering, sampled_share=1.0).temperature_of(n) for n in range(5)} == {0.8}


def test_a_file_cut_short_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    conversations = [asks(40 + n) for n in range(6)]
    whole = answered(file, conversations)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    source = tiny.Successor()
    assert answered(file, conversations, source=source) == whole
    assert 0 < len(source.asked) < 6
    assert file.read_bytes() == content


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"token_ids": [1]}\n')
    with pytest.raises(AdapterError, match=r"answers\.jsonl is damaged"):
        answered(file, [asks(44)])


def test_a_template_that_refuses_a_later_turn_ends_the_conversation(tmp_path: Path) -> None:
    def picky(messages: list[dict[str, Any]], tools: object) -> list[int]:
        if len(messages) > 2 or messages[0]["content"] == [40]:
            raise AdapterError("no tool was called")
        return render(messages, tools)

    decode: Any = list
    more: Any = (decode, tmp_path / "a", ANSWERING, "answers")
    (sample,) = generate([asks(44, 45)], tiny.Successor(), picky, *more)
    assert sample.spans == [(1, 5)]
    more = (decode, tmp_path / "b", ANSWERING, "answers")
    with pytest.raises(AdapterError, match="no tool was called"):
        generate([asks(40)], tiny.Successor(), picky, *more)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([Sample([1, 2, 3], [])], "finished none of 1"),
        ([Sample([1, 2], [(0, 2)])], "too few for 3"),
    ],
)
def test_answers_that_teach_nothing_are_refused(samples: list[Sample], said: str) -> None:
    with pytest.raises(AdapterError, match=said):
        check_answers(samples, 3, 20, Path("learn.jsonl"))


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 1},
        {"max_length": 20},
        {"temperature": float("nan")},
        {"temperature": -1.0},
        {"sampled_share": 1.5},
    ],
)
def test_a_value_out_of_range_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match=next(iter(change))):
        replace(ANSWERING, **change)


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    files.append(file, "first\n")

    def full(part: Path, content: bytes) -> int:
        with part.open("wb") as stream:
            stream.write(content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AdapterError, match="file cannot be written: No space left on device"):
        files.replace(file, b"second")
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "first\n"


def test_a_run_is_begun_once_and_known_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert files.begin(folder, {"model": "a", "seed": 0})
    assert not files.begin(folder, {"model": "a", "seed": 0})
    with pytest.raises(AdapterError, match=r"differs in model, seed \(0 then, 1 now\): remove it"):
        files.begin(folder, {"model": "b", "seed": 1})
    assert json.loads((folder / files.ORIGIN).read_text()) == {"model": "a", "seed": 0}


def test_answers_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "learn.jsonl").touch()
    with pytest.raises(AdapterError, match="does not say what it was made from"):
        files.begin(tmp_path, {})
