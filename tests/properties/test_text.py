"""Text in pieces is the text in one piece, however tokens and characters are divided."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.request import SamplingParams
from engine.text.detokenizer import Detokenizer
from engine.text.stops import StopChecker
from engine.text.stream import TextStream
from tests.engine.tokenizers import byte_fallback, byte_level

unicode_text = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("🙂👩‍👧é世 a\ufffd"),
    ),
    max_size=30,
)
cut_points = st.sets(st.integers(0, 60))


def divide(items, cuts):
    """`items` in slices, cut at these places."""
    places = [0, *sorted(c for c in cuts if c < len(items)), len(items)]
    return [items[a:b] for a, b in pairwise(places)]


def detokenize(tokenizer, prompt_ids, pieces):
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    return "".join([*(detokenizer.push(piece) for piece in pieces), detokenizer.finish()])


@settings(max_examples=150, deadline=None)
@given(prompt=unicode_text, text=unicode_text, cuts=cut_points)
def test_byte_level_text_comes_back_whole(prompt, text, cuts):
    tokenizer = byte_level()
    prompt_ids, output_ids = tokenizer.encode(prompt).ids, tokenizer.encode(text).ids
    assert detokenize(tokenizer, prompt_ids, divide(output_ids, cuts)) == text


@settings(max_examples=150, deadline=None)
@given(text=unicode_text, cuts=cut_points)
def test_byte_fallback_text_is_what_decoding_everything_gives(text, cuts):
    tokenizer = byte_fallback()
    output_ids = tokenizer.encode(text).ids
    assert detokenize(tokenizer, [], divide(output_ids, cuts)) == tokenizer.decode(output_ids)


@settings(max_examples=100, deadline=None)
@given(tokens=st.lists(st.integers(0, 329), max_size=40), cuts=cut_points)
def test_any_tokens_give_the_same_text_in_any_division(tokens, cuts):
    tokenizer = byte_level()
    whole = detokenize(tokenizer, [], [tokens])
    assert detokenize(tokenizer, [], divide(tokens, cuts)) == whole
    # Nothing valid is lost or invented, wherever invalid bytes were given up on.
    assert whole.replace("\ufffd", "") == tokenizer.decode(tokens).replace("\ufffd", "")


# Two letters: stops overlap, nest and repeat.
short = st.text("ab", max_size=12)
stop_sets = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple)


def first_stop(text, stops):
    """Read character by character; end when a stop string is complete, the longest such."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end - len(stop)], stop
    return text, None


@settings(max_examples=300, deadline=None)
@given(text=short, stops=stop_sets, cuts=cut_points)
def test_stops_do_not_depend_on_the_division_of_the_text(text, stops, cuts):
    checker, kept, stop = StopChecker(stops), "", None
    for piece in divide(text, cuts):
        certain, stop = checker.push(piece)
        kept += certain
        if stop is not None:
            break
    else:
        kept += checker.finish()
    assert (kept, stop) == first_stop(text, stops)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text("a b🙂", max_size=20),
    stops=st.lists(st.text("a b🙂", min_size=1, max_size=3), max_size=2).map(tuple),
    cuts=cut_points,
)
def test_a_stop_ends_text_and_tokens_at_the_same_token_in_any_division(text, stops, cuts):
    tokenizer = byte_level()
    tokens = tokenizer.encode(text).ids
    stream, kept, count, stop = TextStream(tokenizer, [], SamplingParams(stop=stops)), "", 0, None
    pieces = divide(tokens, cuts)
    for i, piece in enumerate(pieces):
        delta = stream.push(piece, finished=i == len(pieces) - 1)
        kept, count, stop = kept + delta.text, count + delta.num_tokens, delta.stop
        if stop is not None:
            break
    assert (kept, stop) == first_stop(text, stops)
    if stop is not None:
        assert kept + stop in tokenizer.decode(tokens[:count])
        assert kept + stop not in tokenizer.decode(tokens[: count - 1])
