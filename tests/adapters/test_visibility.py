"""The rule of who sees what, against the paper's dumps (design note sec. 3.2, 3.3, 7.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.visibility import RowLayout, chain, lay_out


def comb(width: int, masks: int) -> list[int]:
    """Parents of the paper's tree: width, width - 1, ... nodes a depth below the first one."""
    parents, first = [-1], 0
    for depth in range(masks):
        parents += [first] * (width - depth)
        first = len(parents) - (width - depth)
    return parents


def sees(layout: RowLayout, row: int) -> set[int]:
    return {j for j in range(len(layout.words)) if layout.words[row] >> j & 1}


@pytest.mark.parametrize(("width", "masks", "rows", "nodes"), [(5, 3, 52, 13), (5, 4, 75, 15)])
def test_comb_has_the_papers_size(width: int, masks: int, rows: int, nodes: int) -> None:
    parents = comb(width, masks)
    layout = lay_out(parents, [(n, masks) for n in range(len(parents))])
    assert (len(layout.words), layout.num_nodes) == (rows, nodes)


def test_comb_5_3_has_the_papers_positions() -> None:
    parents = comb(5, 3)
    layout = lay_out(parents, [(n, 3) for n in range(13)])
    nodes = [0] + 5 * [1] + 4 * [2] + 3 * [3]
    groups = [1, 2, 3] + 5 * [2, 3, 4] + 4 * [3, 4, 5] + 3 * [4, 5, 6]
    assert layout.positions == nodes + groups


def test_comb_5_3_sees_what_the_paper_sees() -> None:
    parents = comb(5, 3)
    layout = lay_out(parents, [(n, 3) for n in range(13)])
    ancestors = [{0}] + [{0, n} for n in range(1, 6)]
    ancestors += [{0, 1, n} for n in range(6, 10)] + [{0, 1, 6, n} for n in range(10, 13)]
    for node in range(13):
        assert sees(layout, node) == ancestors[node]
        assert not layout.sees_prompts(node)
        for i in range(3):
            row = 13 + 3 * node + i
            own = {13 + 3 * node + k for k in range(i + 1)}
            assert sees(layout, row) == ancestors[node] | own
            assert layout.sees_prompts(row)


def test_chain_is_causal() -> None:
    layout = lay_out(chain(6), [])
    assert layout.positions == list(range(6))
    assert [sees(layout, r) for r in range(6)] == [set(range(r + 1)) for r in range(6)]


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    count = draw(st.integers(1, 20))
    parents = [-1] + [draw(st.integers(0, n - 1)) for n in range(1, count)]
    groups = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(1, 4)), max_size=6))
    return parents, groups


@given(trees())
def test_rows_see_whole_paths_and_their_positions_count_them(
    tree: tuple[list[int], list[tuple[int, int]]],
) -> None:
    """A row's position is the number of rows it sees, itself not counted (sec. 2.4)."""
    layout = lay_out(*tree)
    for row, position in enumerate(layout.positions):
        seen = sees(layout, row)
        assert row in seen
        assert max(seen) == row
        assert position == len(seen) - 1
        assert sorted(layout.positions[j] for j in seen) == list(range(len(seen)))
        if not layout.sees_prompts(row):
            assert all(j < layout.num_nodes for j in seen)
