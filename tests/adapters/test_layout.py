"""Mask groups beside a text, against the paper's dump (design note sec. 2.2-2.4, 7.2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.tuning.layout import IGNORE, MaskGroups, Sample, mask_groups


def test_the_papers_dump() -> None:
    """S=10, s0=3, G=4, M=3: group j sees 13 + j real tokens, masks count on from there."""
    sample = Sample(list(range(100, 130)), [(10, 30)])
    anchors = [10 + 3 + j for j in range(4)]
    groups = mask_groups([sample], [anchors], 3)
    assert groups.positions.view(4, 3).tolist() == [
        [13, 14, 15],
        [14, 15, 16],
        [15, 16, 17],
        [16, 17, 18],
    ]
    real = len(sample.token_ids)
    for j in range(4):
        for m in range(3):
            row = groups.visible[0, 3 * j + m]
            assert row[:real].nonzero().flatten().tolist() == list(range(13 + j))
            assert row[real:].nonzero().flatten().tolist() == [3 * j + k for k in range(m + 1)]
    # In place, no shift: mask m of group j gives y[s_j + 1 + m], y[i] being token 110 + i.
    assert groups.labels.view(4, 3).tolist() == [
        [110 + 3 + j + 1 + m for m in range(3)] for j in range(4)
    ]
    # F = S + s_last real rows are all that any group needs.
    assert groups.visible[0, :, :real].any(dim=0).sum() == 16


def test_no_label_crosses_the_end_of_an_answer() -> None:
    sample = Sample(list(range(20)), [(4, 8), (12, 20)])
    assert sample.anchors() == [4, 5, 6, 12, 13, 14, 15, 16, 17, 18]
    labels = mask_groups([sample], [[4, 5, 6, 18]], 3).labels.view(4, 3).tolist()
    assert labels == [[5, 6, 7], [6, 7, IGNORE], [7, IGNORE, IGNORE], [19, IGNORE, IGNORE]]


def test_an_answer_of_one_token_has_no_anchor() -> None:
    assert Sample([1, 2, 3], [(2, 3)]).anchors() == []


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Sample], list[list[int]], int]:
    samples, anchors = [], []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(1, 10))
        end = start + draw(st.integers(2, 12))
        length = end + draw(st.integers(0, 5))
        sample = Sample(list(range(50, 50 + length)), [(start, end)])
        chosen = draw(st.lists(st.sampled_from(sample.anchors()), min_size=1, unique=True))
        samples.append(sample)
        anchors.append(sorted(chosen))
    return samples, anchors, draw(st.integers(1, 4))


def check_rows(groups: MaskGroups, i: int, sample: Sample, anchors: list[int], masks: int) -> None:
    width = groups.visible.shape[2] - groups.visible.shape[1]
    for g, anchor in enumerate(anchors):
        for m in range(masks):
            row = g * masks + m
            assert groups.positions[i, row] == anchor + m
            assert groups.visible[i, row, :width].tolist() == [c < anchor for c in range(width)]
            own = {g * masks + k for k in range(m + 1)}
            seen = set(groups.visible[i, row, width:].nonzero().flatten().tolist())
            assert seen == own
            place = anchor + 1 + m
            known = place < sample.spans[0][1]
            assert groups.labels[i, row] == (sample.token_ids[place] if known else IGNORE)


@given(batches())
def test_rows_are_as_the_rule_says_whatever_the_padding(
    batch: tuple[list[Sample], list[list[int]], int],
) -> None:
    samples, anchors, masks = batch
    groups = mask_groups(samples, anchors, masks)
    rows = groups.labels.shape[1]
    width = groups.visible.shape[2] - rows
    assert width == max(len(s.token_ids) for s in samples)
    for i, sample in enumerate(samples):
        check_rows(groups, i, sample, anchors[i], masks)
        used = len(anchors[i]) * masks
        assert (groups.labels[i, used:] == IGNORE).all()
        for row in range(used, rows):  # padding: itself only, never an empty softmax
            assert groups.visible[i, row].nonzero().flatten().tolist() == [width + row]
