"""What a grammar allows at each node of a draft tree, and that looking changes nothing."""

import pytest

from engine.grammar.compiler import GrammarCompiler
from engine.grammar.constraint import Constraint
from engine.request import Grammar
from engine.speculation.tree import DraftTree, TreeTopology
from tests.factories import VOCAB
from tests.grammars import END, ascii_tokenizer, model_folder

TOKENIZER = ascii_tokenizer()
STOP = TOKENIZER.token_to_id("Z")


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> GrammarCompiler:
    return GrammarCompiler(model_folder(tmp_path_factory.mktemp("m")), VOCAB, (END,))


def regex(compiler: GrammarCompiler, text: str, stops: tuple[int, ...] = ()) -> Constraint:
    return compiler.compile(Grammar("regex", text, "f"), stops)


def ids(text: str) -> list[int]:
    return [END if char == "$" else TOKENIZER.token_to_id(char) for char in text]


def tree(texts: str, parents: tuple[int, ...], masks: int = 0) -> DraftTree:
    """A node a character; "$" is the end-of-sequence token. The root's token says nothing."""
    topology = TreeTopology((-1, *parents), (0,) * len(texts), (masks,) * len(texts))
    reached = tuple(1.0 / (1 + depth) for depth in topology.depths)
    return DraftTree(tuple(ids(texts)), topology, topology.bita, reached)


def allowed(constraint: Constraint, drafts: DraftTree, num_early: int = 0) -> list[str]:
    rows = constraint.allowed(drafts, num_early)
    assert rows.shape == (len(drafts.token_ids), VOCAB)
    assert not constraint.failed
    return [
        "".join(
            "$" if t == END else TOKENIZER.id_to_token(t)
            for t in sorted(row.nonzero()[:, 0].tolist())
            if t == END or len(TOKENIZER.id_to_token(t)) == 1
        )
        for row in rows
    ]


def test_each_node_has_the_mask_of_its_own_path(compiler: GrammarCompiler) -> None:
    constraint = regex(compiler, "(ax|b[yz])c?")
    drafts = tree("?axbyz", (0, 1, 0, 3, 3))
    expected = ["ab", "x", "$c", "yz", "$c", "$c"]
    assert allowed(constraint, drafts) == expected
    assert allowed(constraint, drafts) == expected  # rolled back
    constraint.advance(ids("b"))
    assert allowed(constraint, tree("?yc", (0, 1))) == ["yz", "$c", "$"]


def test_tokens_are_forced_where_no_others_are_allowed(compiler: GrammarCompiler) -> None:
    constraint = regex(compiler, "abc(d|e)fg")
    assert constraint.forced() == constraint.forced() == ids("abc")
    constraint.advance(ids("abc"))
    assert constraint.forced() == []
    constraint.advance(ids("e"))
    assert constraint.forced() == ids("fg")
    constraint.advance(ids("fg"))
    assert constraint.forced() == []


def test_what_the_grammar_forbids_is_pruned_with_all_below_it(compiler: GrammarCompiler) -> None:
    constraint = regex(compiler, "(ax|b[yz])c?")
    drafts = tree("?xabxyc", (0, 0, 0, 2, 1, 4), masks=2)
    pruned = constraint.prune(drafts)
    assert pruned.token_ids == tuple(ids("?abxc"))
    assert pruned.topology.parents == (-1, 0, 0, 1, 3)
    assert pruned.topology.masks == (2,) * 5
    assert pruned.reached == tuple(drafts.reached[i] for i in (0, 2, 3, 4, 6))
    pruned.check_integrity()
    assert constraint.prune(pruned) is pruned


def test_a_forbidden_node_left_in_a_tree_allows_anything(compiler: GrammarCompiler) -> None:
    rows = regex(compiler, "ab").allowed(tree("?xab", (0, 0, 2)))
    assert rows[1].all()
    assert rows[0].sum() == rows[2].sum() == rows[3].sum() == 1


def test_the_end_is_allowed_where_the_grammar_may_end(compiler: GrammarCompiler) -> None:
    constraint = regex(compiler, "a+", (STOP,))
    drafts = tree("?aa$Z$", (0, 1, 1, 1, 0))
    assert allowed(constraint, constraint.prune(drafts))[:3] == ["a", "$Za", "$Za"]
    kept = constraint.prune(drafts)
    assert kept.token_ids == tuple(ids("?aa$Z"))
    assert constraint.allowed(kept)[3:].all()


def test_a_stop_token_that_is_also_text_is_allowed_as_text(compiler: GrammarCompiler) -> None:
    constraint = regex(compiler, "aZb", (STOP,))
    constraint.advance(ids("a"))
    assert allowed(constraint, constraint.prune(tree("?Zb", (0, 1))))[0] == "Z"


def test_early_rows_end_only_where_nothing_else_is_left(compiler: GrammarCompiler) -> None:
    drafts = tree("?aa", (0, 1))
    assert allowed(regex(compiler, "a*"), drafts, num_early=2) == ["a", "a", "$a"]
    assert allowed(regex(compiler, "a{0,2}"), drafts, num_early=9) == ["a", "a", "$"]


def test_a_grammar_that_outgrows_its_limits_fails_and_is_not_wrong(
    compiler: GrammarCompiler,
) -> None:
    constraint = regex(compiler, "(a{1000}b?){1000}")
    for _ in range(200):
        constraint.allowed(tree("?a", (0,)))
        constraint.advance(ids("aaaaa"))
        if constraint.failed:
            break
    assert constraint.allowed(tree("?", ())).any()
