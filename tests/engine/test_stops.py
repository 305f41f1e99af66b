"""StopChecker: what it lets through, what it keeps back, which stop wins."""

import pytest

from engine.text.stops import StopChecker


def test_text_without_a_stop_passes():
    checker = StopChecker(("END",))
    assert checker.push("hello") == ("hello", None)
    assert checker.finish() == ""


def test_no_stops_at_all():
    assert StopChecker(()).push("hello") == ("hello", None)


def test_the_stop_and_what_follows_are_not_text():
    assert StopChecker(("END",)).push("hello END there") == ("hello ", "END")


def test_a_stop_is_found_across_pieces():
    checker = StopChecker(("END",))
    assert checker.push("hello E") == ("hello ", None)
    assert checker.push("N") == ("", None)
    assert checker.push("D!") == ("", "END")


def test_what_was_kept_back_comes_when_it_is_no_stop():
    checker = StopChecker(("END",))
    assert checker.push("E") == ("", None)
    assert checker.push("EN") == ("E", None)
    assert checker.push("T") == ("ENT", None)


def test_the_end_of_the_text_gives_what_was_kept_back():
    checker = StopChecker(("END",))
    checker.push("the EN")
    assert checker.finish() == "EN"
    assert checker.finish() == ""


@pytest.mark.parametrize(
    ("stops", "text", "kept", "stop"),
    [
        (("b", "a"), "xaab", "x", "a"),
        (("ab", "abc"), "xabc", "x", "ab"),
        (("c", "abc"), "xabc", "x", "abc"),
        (("abcd", "bc"), "xabcd", "xa", "bc"),
        (("aa",), "aaa", "", "aa"),
        (("\n\n",), "a\n\n\n", "a", "\n\n"),
    ],
    ids=["first", "shorter", "longer", "complete first", "overlap", "newlines"],
)
def test_the_stop_that_is_complete_first_wins(stops, text, kept, stop):
    assert StopChecker(stops).push(text) == (kept, stop)


def test_the_stop_is_part_of_the_text_where_that_is_asked():
    assert StopChecker(("END",), include=True).push("hello END there") == ("hello END", "END")


def test_a_stop_that_was_complete_too_early_never_counts():
    checker = StopChecker(("ab", "xabc"))
    assert checker.push("xab", may_stop=False) == ("", None)
    assert checker.push("d") == ("xabd", None)
    assert checker.push("ab") == ("", "ab")
