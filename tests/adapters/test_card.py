"""The card beside an adapter says what it is, and what nobody measured."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.card import acceptance_length, card
from adapters.errors import AdapterError
from adapters.format import AdapterConfig
from adapters.profile import HitProfile, prior
from adapters.whole import whole
from tests.adapters.tiny import SHAPE


def config(**changes: Any) -> AdapterConfig:
    profile = HitProfile([[0.512, 0.25], [0.125, 0.0]], [9, 5])
    tuned = AdapterConfig(
        **asdict(SHAPE),
        num_prompts=4,
        num_masks=2,
        profile=profile,
        tuning={"acceptance_length_comb": 1.875},
    )
    return replace(tuned, **changes)


def test_a_measured_adapter_shows_its_rates() -> None:
    text = card(config())
    assert "`llama` of 2 layers, hidden size 32, vocabulary 48. 4 prompts, 2 masks" in text
    assert "| 1 | 0.512 | 0.250 | 0.762 |" in text
    assert "held-out" in text
    assert "1.88 tokens a forward" in text
    assert "never measured" not in text


def test_depths_nobody_reached_are_not_called_measured() -> None:
    text = card(config(profile=HitProfile([[0.5], [0.25]], [9, 0])))
    assert "no draft reached" in text
    assert "no draft reached" not in card(config())


def test_an_imported_adapter_says_that_its_rates_are_assumed() -> None:
    tuning = {"origin": "official BiTA checkpoint", "notes": ["Mind the gap."]}
    text = card(config(profile=prior(2), tuning=tuning))
    assert "Imported from an official BiTA checkpoint." in text
    assert "Mind the gap." in text
    assert "never measured" in text
    assert "0.483" in text
    assert "held-out" not in text
    assert "comb" not in text


@pytest.mark.parametrize("length", [None, "much", [1]])
def test_an_acceptance_length_that_is_no_number_is_none(length: Any) -> None:
    assert acceptance_length(config(tuning={"acceptance_length_comb": length})) is None


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_written_whole_appears_at_the_end(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "new" / "target"
    with whole(target) as part:
        part.mkdir() if folder else part.touch()
        assert not target.exists()
    assert [p.name for p in target.parent.iterdir()] == ["target"]
    with pytest.raises(AdapterError, match="exists already"), whole(target):
        pass
    assert target.exists()


@pytest.mark.parametrize("folder", [True, False])
def test_what_breaks_off_leaves_nothing(tmp_path: Path, folder: bool) -> None:
    def breaks_off() -> None:
        with whole(tmp_path / "target") as part:
            part.mkdir() if folder else part.touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks_off()
    assert list(tmp_path.iterdir()) == []
