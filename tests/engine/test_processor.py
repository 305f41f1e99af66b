"""The processor's name, wherever the machine keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import processor


def test_the_name_is_the_first_that_the_kernel_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9575F\nmodel name\t: another\n")
    monkeypatch.setattr(processor, "INFO", info)
    assert processor.processor_name() == "AMD EPYC 9575F"


@pytest.mark.parametrize("text", ["", "processor\t: 0\n", None])
def test_without_a_name_there_is_the_architecture(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    if text is not None:
        info.write_text(text)
    monkeypatch.setattr(processor, "INFO", info)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor.processor_name() == "aarch64"
    assert not processor.is_x86()
