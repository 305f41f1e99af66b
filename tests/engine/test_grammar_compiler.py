"""Grammars are compiled once, bounded, and refused by the name of their field."""

import json
from pathlib import Path

import pytest

from engine.errors import RequestError
from engine.grammar import compiler as module
from engine.grammar.compiler import MAX_BYTES, MAX_DEPTH, GrammarCompiler, depth
from engine.request import Grammar
from models import DEFAULT_MODEL
from tests.factories import VOCAB
from tests.grammars import END, model_folder


@pytest.fixture
def compiler(tmp_path: Path) -> GrammarCompiler:
    return GrammarCompiler(model_folder(tmp_path), VOCAB, (END,))


def nested(levels: int) -> str:
    return '{"properties":{"a":' * levels + "{}" + "}}" * levels


BAD = [
    ("json_schema", "{", "delimiter|property name"),
    ("json_schema", "[]", "object"),
    ("json_schema", '{"type": "strange"}', "strange"),
    ("json_schema", '{"$ref": "#"}', "no text"),
    ("json_schema", '{"$ref": "#/$defs/none"}', "does not exist"),
    ("json_schema", '{"$ref": "http://example.com/s.json"}', "not present"),
    ("json_schema", '{"$ref": "file:///etc/passwd"}', "not present"),
    ("json_schema", '{"not": {}}', "not"),
    ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
    ("json_schema", '{"type": "string", "format": "strange"}', "strange"),
    ("json_schema", '{"type": "string", "pattern": "("}', "unclosed"),
    ("json_schema", nested(MAX_DEPTH), "deep"),
    ("json_schema", '{"a":' * 10_000 + "1" + "}" * 10_000, "depth"),
    ("json_schema", json.dumps({"enum": ["x" * MAX_BYTES]}), "larger"),
    ("regex", "(", "unclosed"),
    ("regex", "(?=a)b", "look-around"),
    ("regex", r"(a)\1", "backreferences"),
    ("regex", "é", "no text"),
    ("regex", "(" * 20_000 + ")" * 20_000, "nest"),
    ("regex", "\ud800", "surrogates"),
    ("choice", '["é"]', "no text"),
    ("ebnf", "", "root"),
    ("ebnf", "root ::= (", "."),
    ("ebnf", "root ::= " + "(" * 20_000, "."),
    ("ebnf", 'start: "a', "."),
    ("ebnf", "start: nowhere", "nowhere"),
    ("ebnf", "start: " + "(" * 5000 + '"a"' + ")" * 5000, "nested"),
    ("lark", 'start: start "a"', "no text"),
    ("spell", "", "kind"),
]
# As long as the library's fuel lasts.
COSTLY = [
    ("json_schema", '{"type": "string", "pattern": "^(a{1000}){1000}$"}', "too many"),
    ("regex", "a{1000000}", "too many"),
]


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [*BAD, *(pytest.param(*case, marks=pytest.mark.slow) for case in COSTLY)],
    ids=range(len(BAD) + len(COSTLY)),
)
def test_a_bad_grammar_is_refused_with_the_reason(
    compiler: GrammarCompiler, kind: str, text: str, why: str
) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        compiler.compile(Grammar(kind, text, "here"))
    assert caught.value.field == "here"
    assert str(caught.value).startswith("Invalid 'here': ")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("kind", "text", "good", "bad"),
    [
        ("regex", "^a[0-9]$", "a1", "a12"),
        ("regex", r"(a|aa)+\$", "aaa$", "aaa"),
        ("choice", json.dumps(['a"b\\/\n', "x|y", "\x7f."]), "x|y", "x"),
        ("choice", json.dumps(['a"b\\/\n']), 'a"b\\/\n', "a"),
        ("json_schema", '{"type": "object"}', '{"a": [1, 2], "b": {}}', '{"a" :1}'),
        ("ebnf", 'root ::= "a" ("b" | "c")*', "abc", "b"),
        ("ebnf", 'start: "a" /[0-9]+/', "a12", "a"),
    ],
)
def test_a_grammar_means_what_it_says(
    compiler: GrammarCompiler, kind: str, text: str, good: str, bad: str
) -> None:
    for answer, fits in ((good, True), (bad, False)):
        matcher = compiler.compile(Grammar(kind, text, "f"))._matcher
        tokens = compiler._of_tokens(Grammar(kind, text, "f")).tokenize_str(answer)
        whole = matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
        assert whole is fits, answer


def test_added_tokens_that_are_no_special_ones_are_text() -> None:
    compiler = GrammarCompiler(DEFAULT_MODEL, 4096, (2,))
    grammar = Grammar("regex", "<tool_call>[a-z]+</tool_call>", "f")
    matcher = compiler.compile(grammar)._matcher
    tokens = compiler._of_tokens(grammar).tokenize_str("<tool_call>book</tool_call>")
    assert tokens[0] == 4090
    assert matcher.try_consume_tokens(tokens) == len(tokens)


def test_sequences_of_one_grammar_do_not_share_their_place(compiler: GrammarCompiler) -> None:
    grammar = Grammar("regex", "ab", "f")
    one, other = compiler.compile(grammar), compiler.compile(grammar)
    one.advance([compiler._of_tokens(grammar).tokenize_str("a")[0]])
    assert one._matcher.compute_bitmask() != other._matcher.compute_bitmask()


def test_what_was_used_last_is_kept(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 2)
    first, second, third = (Grammar("regex", text, "f") for text in "abc")
    for grammar in (first, second, first, third):
        compiler.compile(grammar)
    assert [compiler.knows(g) for g in (first, second, third)] == [True, False, True]
    assert compiler.knows(Grammar("regex", "a", "other field"))


def test_a_model_without_an_end_has_no_grammars(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="end-of-sequence"):
        GrammarCompiler(model_folder(tmp_path), VOCAB, ()).compile(Grammar("regex", "a", "f"))


def test_depth_counts_objects_and_arrays() -> None:
    assert depth(1) == 0
    assert depth({"a": [1, {"b": {}}]}) == 4
