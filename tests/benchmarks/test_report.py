"""Tables, ratios and what rounds are reduced to."""

import json
from pathlib import Path

import pytest

from benchmarks import report, serving
from benchmarks.load.measures import Record
from benchmarks.sessions import Call


def exchange(prompt: str, text: str) -> tuple[Call, Record]:
    return Call(prompt, [], 8), Record(0.0, 0.0, 1.0, tokens=1, text=text)


def test_a_table_is_markdown_under_its_title() -> None:
    table = report.Table("speed", ("side", "tokens/s"))
    table.add("bita", 1234.5)
    table.add("plain", 1.234)
    assert table.markdown().splitlines() == [
        "**speed**",
        "",
        "| side | tokens/s |",
        "| --- | --- |",
        "| bita | 1234 |",
        "| plain | 1.23 |",
    ]


def test_the_last_line_is_json_and_the_file_has_every_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [report.Table(title, ("a",)) for title in ("one", "two")]
    report.publish(tables, {"x": [1]}, tmp_path / "tables.md")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"x": [1]}
    assert (tmp_path / "tables.md").read_text().count("| a |") == 2


def test_a_ratio_pairs_rounds() -> None:
    assert report.ratio([10.0, 2.0, 30.0], [5.0, 2.0, 10.0]) == 2.0


def test_medians_are_taken_figure_by_figure() -> None:
    rounds = [{"tokens": t, "ttft": {"p50": t / 10}} for t in (3, 1, 2)]
    assert serving.medians(rounds) == {"tokens": 2, "ttft": {"p50": 0.2}}


def test_answers_are_compared_where_the_prompts_agree() -> None:
    one = [[exchange("a", "x"), exchange("ax", "y")]]
    other = [[exchange("a", "z"), exchange("az", "w")], [exchange("ax", "y")]]
    assert serving.same_text(one, other) == [1, 2]
