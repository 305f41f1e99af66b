"""Detokenizer: whole characters as soon as they are certain, spaces as in the whole text."""

import pytest
from tokenizers import Tokenizer

from engine.text.detokenizer import Detokenizer
from tests.engine.tokenizers import EOS, byte_fallback, byte_level, ids, metaspace


def stream(tokenizer, prompt_ids, output_ids):
    """What each token adds, then what the end adds."""
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    return [*(detokenizer.push([t]) for t in output_ids), detokenizer.finish()]


def byte_tokens(data: bytes):
    """One byte-level token a byte: printable Latin-1 is named as itself, the rest from U+0100."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    names = {b: chr(b) for b in kept} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return ids(byte_level(), *(names[byte] for byte in data))


def test_a_character_appears_with_its_last_byte():
    assert stream(byte_level(), [], byte_tokens("a🙂b".encode())) == [
        "a",
        "",
        "",
        "",
        "🙂",
        "b",
        "",
    ]


def test_text_before_an_unfinished_character_does_not_wait_for_it():
    decoded = {(7,): "a\ufffd", (7, 8): "aé", (): ""}

    class Table:
        def decode(self, token_ids, skip_special_tokens):
            return decoded.get(tuple(token_ids), "é")

    assert stream(Table(), [], [7, 8]) == ["a", "é", ""]


def test_invalid_bytes_appear_once_a_character_follows():
    assert stream(byte_level(), [], byte_tokens(b"\xffa")) == ["", "\ufffda", ""]


def test_an_unfinished_character_appears_at_the_end():
    assert stream(byte_level(), [], byte_tokens(b"a\xf0\x9f")) == ["a", "", "", "\ufffd"]


@pytest.mark.parametrize("byte", [b"\xff", b"\x80"])
def test_a_run_of_invalid_bytes_is_not_held_back_for_long(byte):
    pieces = stream(byte_level(), [], byte_tokens(byte * 40))
    seen = 0
    for count, piece in enumerate(pieces[:-1], start=1):
        seen += len(piece)
        assert seen > count - 12
    assert "".join(pieces) == "\ufffd" * 40


def test_the_replacement_character_itself_is_text():
    text = "\ufffd" * 30
    assert "".join(stream(byte_level(), [], byte_tokens(text.encode()))) == text


def test_a_character_is_whole_after_a_run_of_invalid_bytes():
    data = b"\xff" * 8 + "世界".encode()
    assert "".join(stream(byte_level(), [], byte_tokens(data))) == data.decode(errors="replace")


def test_the_first_word_of_an_answer_keeps_its_space():
    tokenizer = metaspace()
    prompt, output = ids(tokenizer, "▁the", "▁cat"), ids(tokenizer, "▁sat", "▁on", ".")
    assert stream(tokenizer, prompt, output) == [" sat", " on", ".", ""]


def test_the_first_word_of_a_text_has_no_space():
    tokenizer = metaspace()
    output = ids(tokenizer, "▁the", "▁cat", "s")
    assert stream(tokenizer, [], output) == ["the", " cat", "s", ""]


def test_a_space_of_its_own_is_kept():
    tokenizer = metaspace()
    output = ids(tokenizer, "▁the", "▁", "▁cat", "▁", "s")
    assert "".join(stream(tokenizer, [], output)) == tokenizer.decode(output)


def test_special_tokens_at_the_prompts_end_do_not_hide_its_text():
    tokenizer = byte_fallback()
    [eos] = ids(tokenizer, EOS)
    prompt = [*ids(tokenizer, "▁the"), *[eos] * 20]
    assert stream(tokenizer, prompt, ids(tokenizer, "▁cat")) == [" cat", ""]


def test_a_prompt_that_ends_in_byte_tokens_does_not_spoil_the_answer():
    tokenizer = byte_fallback()
    prompt = tokenizer.encode("世界世界").ids
    output = ids(tokenizer, "<0xE4>", "<0xBD>", "<0xA0>", "▁cat")
    assert stream(tokenizer, prompt, output) == ["", "", "你", " cat", ""]


def test_special_tokens_have_no_text_unless_asked_for():
    tokenizer = byte_level()
    [eos] = ids(tokenizer, EOS)
    assert "".join(stream(tokenizer, [], [*tokenizer.encode("a b").ids, eos])) == "a b"
    assert Detokenizer(tokenizer, [], skip_special_tokens=False).push([eos]) == EOS


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_some_special_tokens_can_be_part_of_the_text(make):
    tokenizer = Tokenizer.from_str(make().to_str())
    tokenizer.add_special_tokens(["[CALLS]"])
    marker, eos = tokenizer.token_to_id("[CALLS]"), tokenizer.token_to_id(EOS)
    before, after = tokenizer.encode("the cat").ids, tokenizer.encode(" sat").ids
    tokens = [*before, eos, marker, *after, eos]
    detokenizer = Detokenizer(tokenizer, [eos], kept=[marker])
    shown = [*before, marker, *after]
    text = "".join([detokenizer.push([token]) for token in tokens]) + detokenizer.finish()
    assert text == tokenizer.decode(shown, skip_special_tokens=False)
    assert "[CALLS]" in text
    assert EOS not in text


def test_tokens_without_text_do_not_pile_up():
    tokenizer = byte_level()
    [eos] = ids(tokenizer, EOS)
    decoded = []

    class Spy:
        def decode(self, token_ids, skip_special_tokens):
            decoded.append(len(token_ids))
            return tokenizer.decode(token_ids, skip_special_tokens)

    detokenizer = Detokenizer(Spy(), tokenizer.encode("the ").ids)
    assert detokenizer.push([eos] * 500) == ""
    assert detokenizer.push(tokenizer.encode("fox").ids) == "fox"
    assert max(decoded) < 40
