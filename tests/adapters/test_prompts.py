"""Prompt files and self-generated answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterError
from adapters.tuning import generate as module
from adapters.tuning.generate import Answering, generate
from adapters.tuning.layout import Sample
from adapters.tuning.prompts import Conversation, load, sample, split
from tests.adapters.tiny import VOCAB, Successor

USER = {"role": "user", "content": "10"}


def test_load_reads_both_forms_and_equal_lines_once(tmp_path: Path) -> None:
    tools = [{"type": "function"}]
    chat = json.dumps({"messages": [USER], "tools": tools})
    plain = json.dumps({"prompt": "hello"})
    file = tmp_path / "prompts.jsonl"
    file.write_text(f"{chat}\n\n{plain}\n{chat}\n{plain}")
    expected = [
        Conversation([USER], tools),
        Conversation([{"role": "user", "content": "hello"}]),
    ]
    assert load(file) == expected
    with gzip.open(tmp_path / "prompts.jsonl.gz", "wb") as packed:
        packed.write(file.read_bytes())
    assert load(tmp_path / "prompts.jsonl.gz") == expected


def said(*turns: str) -> Conversation:
    """A conversation of user, assistant, user ..."""
    speakers = ("user", "assistant")
    return Conversation(
        [{"role": speakers[i % 2], "content": text} for i, text in enumerate(turns)]
    )


FORMS: list[tuple[dict[str, Any], Conversation]] = [
    ({"messages": [USER]}, said("10")),
    ({"prompt": "def f():", "task_id": "HumanEval/0", "test": "..."}, said("def f():")),
    ({"prompt": [USER], "completion": "..."}, said("10")),
    ({"question_id": 81, "category": "writing", "turns": ["a", "b"]}, said("a", "", "b")),
    ({"question_id": 82, "turns": ["a"]}, said("a")),
    ({"question": "How many?", "answer": "#### 3"}, said("How many?")),
    ({"instruction": "Add.", "input": "1, 2", "response": "3"}, said("Add.\n\n1, 2")),
    ({"instruction": "Sing.", "input": "", "output": "la"}, said("Sing.")),
    ({"instruction": "Sing."}, said("Sing.")),
    (
        {
            "id": "x",
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        },
        said("a", "b"),
    ),
    (
        {"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "a"}]},
        Conversation([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]),
    ),
    # Of several forms the fuller one counts.
    ({"prompt": "a", "messages": [USER]}, said("10")),
    ({"question": "q", "instruction": "i"}, said("i")),
]


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.json", "p.json.gz"])
def test_all_forms_load_from_lines_and_arrays_packed_and_not(tmp_path: Path, name: str) -> None:
    records = [record for record, _ in FORMS]
    array = json.dumps(records, indent=2)
    lines = "\n".join(json.dumps(record) for record in records)
    content = (lines if ".jsonl" in name else array).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    loaded = load(tmp_path / name)
    unique = [c for i, (_, c) in enumerate(FORMS) if c not in [d for _, d in FORMS[:i]]]
    assert loaded == unique


def test_an_array_is_told_from_lines_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('\n [{"prompt": "a"},\n {"prompt": "b"}]')
    (tmp_path / "p.json").write_text('{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    assert load(tmp_path / "p.jsonl") == load(tmp_path / "p.json") == [said("a"), said("b")]
    # Characters that end lines elsewhere do not end them in JSON Lines; a byte order mark is none.
    (tmp_path / "u.jsonl").write_text('\ufeff{"prompt": "a\u2028b"}', encoding="utf-8")
    assert load(tmp_path / "u.jsonl") == [said("a\u2028b")]


BROKEN = [
    "{",
    "7",
    '"prompt"',
    "null",
    "{}",
    '{"text": "a"}',
    '{"messages": []}',
    '{"messages": [{}]}',
    '{"messages": 3}',
    '{"messages": ["role"]}',
    '{"messages": [{"role": "user", "content": 3}]}',
    '{"messages": [{"role": "user", "content": "a"}], "tools": {}}',
    '{"prompt": ""}',
    '{"prompt": null}',
    '{"prompt": 7}',
    '{"prompt": "\\ud800"}',
    '{"turns": []}',
    '{"turns": "a"}',
    '{"turns": ["a", ""]}',
    '{"instruction": ["a"]}',
    '{"instruction": "a", "input": 7}',
    '{"question": " "}',
    '{"conversations": [{"from": "nobody", "value": "a"}]}',
    '{"conversations": [{"role": "user", "content": "a"}]}',
]


@pytest.mark.parametrize("line", ["[]", *BROKEN])
def test_load_names_the_line_that_has_no_form(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(AdapterError, match=r"p\.jsonl, line 2: ") as error:
        load(tmp_path / "p.jsonl")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("item", BROKEN[1:])
def test_load_names_the_item_that_has_no_form(tmp_path: Path, item: str) -> None:
    (tmp_path / "p.json").write_text(f'[\n  {{"prompt": "a"}},\n  {item}\n]\n')
    with pytest.raises(AdapterError, match=r"p\.json, item 2: "):
        load(tmp_path / "p.json")


def test_load_names_the_line_where_an_array_breaks_off(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[\n  {"prompt": "a"},\n  {"prompt": "b"\n')
    with pytest.raises(AdapterError, match=r"p\.json, line 4: no JSON"):
        load(tmp_path / "p.json")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"prompt": "a"}' * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-12])
    (tmp_path / "bits.jsonl.gz").write_bytes(packed[:20] + b"\xff" * 9 + packed[29:])
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe4"}')
    for name in ("cut.jsonl.gz", "bits.jsonl.gz", "latin.jsonl"):
        with pytest.raises(AdapterError, match=f"{name} cannot be read"):
            load(tmp_path / name)
    with pytest.raises(AdapterError, match="gone does not exist"):
        load(tmp_path / "gone")
    with pytest.raises(AdapterError, match="is no file"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", "[]"])
def test_load_refuses_a_file_without_prompts(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(AdapterError, match="no prompts"):
        load(tmp_path / "p.jsonl")


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_split_is_a_partition_with_both_sides(count: int, held_out: float, seed: int) -> None:
    all_ = [Conversation([{"role": "user", "content": str(i)}]) for i in range(count)]
    learn, held = split(all_, held_out, seed)
    assert learn
    assert held
    key = [c.messages[0]["content"] for c in (*learn, *held)]
    assert sorted(key, key=int) == [str(i) for i in range(count)]
    assert (learn, held) == split(all_, held_out, seed)


def test_a_sample_is_drawn_from_all_of_a_sorted_file() -> None:
    sorted_ = [Conversation([{"role": "user", "content": str(i)}]) for i in range(100)]
    drawn = [int(c.messages[0]["content"]) for c in sample(sorted_, 20, seed=0)]
    assert len(set(drawn)) == 20
    assert max(drawn) >= 80
    assert sample(sorted_, 20, seed=0) == sample(sorted_, 20, seed=0)
    assert sample(sorted_, 20, seed=0) != sample(sorted_, 20, seed=1)
    assert len(sample(sorted_, 200, seed=0)) == 100


def test_split_refuses_a_single_conversation() -> None:
    with pytest.raises(AdapterError, match="two"):
        split([Conversation([USER])], 0.1, 0)


def render(messages: list[dict[str, Any]], _: list[dict[str, Any]] | None) -> list[int]:
    """Tokens of the content; another speaker's text starts with token 1."""
    ids: list[int] = []
    for message in messages:
        own = message["role"] == "assistant"
        ids += ([] if own else [1]) + [int(t) for t in message["content"].split()]
    return ids


def decode(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


def run(
    conversations: list[Conversation], file: Path, source: Successor | None = None, **limits: int
) -> list[Sample]:
    answering = Answering(**{"max_tokens": 20, "max_length": 80} | limits)
    return generate(
        conversations, source or Successor(), render, decode, file, answering, title="test"
    )


def talk(*turns: int) -> Conversation:
    """A conversation whose user says these tokens, the assistant something else between."""
    messages = []
    for turn in turns:
        messages += [
            {"role": "user", "content": str(turn)},
            {"role": "assistant", "content": "what the corpus says"},
        ]
    return Conversation(messages)


def test_the_model_answers_every_turn_after_its_own_words(tmp_path: Path) -> None:
    (sample,) = run([talk(VOCAB - 3, VOCAB - 2)], tmp_path / "a.jsonl")
    end = [VOCAB - 1, 0]
    assert sample.token_ids == [1, VOCAB - 3, VOCAB - 2, *end, 1, VOCAB - 2, *end]
    assert sample.spans == [(2, 5), (7, 9)]


def test_answers_cut_off_are_dropped_and_end_the_conversation(tmp_path: Path) -> None:
    source = Successor()
    cut, whole = run([talk(5, VOCAB - 2), talk(VOCAB - 2)], tmp_path / "a.jsonl", source)
    assert cut.spans == []
    assert whole.spans == [(2, 4)]
    assert len(source.asked) == 2


def test_a_conversation_stops_where_it_no_longer_fits(tmp_path: Path) -> None:
    (sample,) = run([talk(VOCAB - 2, VOCAB - 2)], tmp_path / "a.jsonl", max_length=23)
    assert len(sample.spans) == 1


def test_a_run_started_again_asks_only_for_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONVERSATIONS_AT_ONCE", 2)
    conversations = [talk(VOCAB - 2 - i % 5) for i in range(5)]
    whole = run(conversations, tmp_path / "whole.jsonl")
    run(conversations[:2], tmp_path / "cut.jsonl")
    source = Successor()
    assert run(conversations, tmp_path / "cut.jsonl", source) == whole
    assert len(source.asked) == 3
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    again = Successor()
    assert run(conversations, tmp_path / "cut.jsonl", again) == whole
    assert again.asked == []


def test_a_line_cut_short_by_a_kill_is_made_again(tmp_path: Path) -> None:
    conversations = [talk(VOCAB - 2), talk(VOCAB - 3), talk(VOCAB - 4)]
    file = tmp_path / "a.jsonl"
    whole = run(conversations, file)
    text = file.read_text()
    file.write_text(text[:-7])
    assert run(conversations, file) == whole
    assert file.read_text() == text
