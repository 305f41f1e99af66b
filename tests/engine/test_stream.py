"""TextStream: text up to a stop string, and the tokens that belong to it."""

from engine.request import SamplingParams
from engine.text.stream import TextDelta, TextStream
from tests.engine.tokenizers import byte_level, ids, metaspace


def test_tokens_behind_the_stop_do_not_count():
    tokenizer = metaspace()
    stream = TextStream(tokenizer, [], SamplingParams(stop=(" sat",)))
    tokens = ids(tokenizer, "▁the", "▁cat", "▁sat", "▁on", ".")
    assert stream.push(tokens, finished=False) == TextDelta("the cat", " sat", 3)


def test_the_token_that_completes_the_stop_counts_though_it_goes_on():
    tokenizer = metaspace()
    stream = TextStream(tokenizer, [], SamplingParams(stop=("t s",)))
    tokens = ids(tokenizer, "▁the", "▁cat", "▁sat", "▁on")
    assert stream.push(tokens, finished=True) == TextDelta("the ca", "t s", 3)


def test_a_stop_across_two_pushes_counts_the_tokens_of_the_second():
    tokenizer = metaspace()
    stream = TextStream(tokenizer, [], SamplingParams(stop=("cat sat",)))
    assert stream.push(ids(tokenizer, "▁the", "▁cat"), False) == TextDelta("the ", None, 2)
    assert stream.push(ids(tokenizer, "▁sat", "▁on"), False) == TextDelta("", "cat sat", 1)


def test_the_end_gives_what_was_kept_back():
    tokenizer = metaspace()
    stream = TextStream(tokenizer, [], SamplingParams(stop=("cats",)))
    assert stream.push(ids(tokenizer, "▁the", "▁cat"), False) == TextDelta("the ", None, 2)
    assert stream.push([], True) == TextDelta("cat", None, 0)


def test_the_end_can_complete_a_stop():
    tokenizer = byte_level()
    stream = TextStream(tokenizer, [], SamplingParams(stop=("\ufffd",)))
    half_an_emoji = ids(tokenizer, "a", "ð")
    assert stream.push(half_an_emoji, True) == TextDelta("a", "\ufffd", 2)


def test_the_prompt_is_neither_text_nor_part_of_a_stop():
    tokenizer = metaspace()
    prompt = ids(tokenizer, "▁the", "▁cat")
    stream = TextStream(tokenizer, prompt, SamplingParams(stop=("cat sat",)))
    assert stream.push(ids(tokenizer, "▁sat"), True) == TextDelta(" sat", None, 1)


def test_no_stop_string_ends_among_the_first_tokens():
    tokenizer = metaspace()
    stream = TextStream(tokenizer, [], SamplingParams(stop=("cat", "sat"), min_tokens=2))
    delta = stream.push(ids(tokenizer, "▁the", "▁cat", "▁sat", "▁on"), finished=False)
    assert delta == TextDelta("the cat ", "sat", 3)
