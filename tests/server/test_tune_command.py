"""bita tune, as a user types it."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.format import BitaAdapter
from adapters.tuning.trainer import Tuner
from engine.answers import EngineAnswers
from server import cli
from server.commands.tune import forecast
from tests.adapters import official
from tests.server.stub import TEMPLATE, VOCAB_SIZE, byte_tokenizer

SMALL = "--conversations 5 --max-tokens 24 --max-length 96 --steps 4 --batch 2 --groups 3"
SMALL += " --masks 2 --prompt-tokens 2 --successor-rank 2"
ENDS = list(range(0, VOCAB_SIZE, 8))
"""A model with random weights comes upon one of these soon."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model without a chat template."""
    folder = tmp_path_factory.mktemp("base")
    official.llama(vocab=VOCAB_SIZE).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDS}))
    return folder


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a chat model."""
    folder = tmp_path_factory.mktemp("models") / "chat"
    shutil.copytree(base, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "What is {n} and {n}?"}}\n' for n in range(10)))
    return file


@pytest.fixture(scope="module")
def tuned(model: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing stopped leaves behind."""
    out = tmp_path_factory.mktemp("tuned") / "adapter"
    assert tune(model, prompts, out) == 0
    return out


def tune(model: Path, prompts: Path, out: Path, *more: object) -> int:
    words = ["tune", "--model", model, "--prompts", prompts, "--out", out, *SMALL.split(), *more]
    return cli.main(list(map(str, words)))


def refused(
    capsys: pytest.CaptureFixture[str], model: Path, prompts: Path, out: Path, *more: object
) -> str:
    """The one sentence of a run that fails; no adapter is left behind."""
    assert tune(model, prompts, out, *more) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("bita tune: ")
    assert sorted(f.name for f in out.glob("*")) in ([], ["run"])
    return said


def weights(out: Path) -> list[torch.Tensor]:
    adapter = BitaAdapter.load(out)
    assert adapter.successor is not None
    return [adapter.prompt_kv, adapter.mask_embeddings, *adapter.successor.tensors().values()]


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_an_estimate_writes_nothing(
    model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(model, prompts, tmp_path / "new", "--estimate") == 0
    said = capsys.readouterr().out
    for word in ("memory", "at the fullest", "disk", "checkpoint", "time", "4 steps of", "all"):
        assert word in said
    assert not (tmp_path / "new").exists()


def test_what_cannot_fit_is_said_before_the_model_is_loaded(
    model: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("engine.model.memory.free_memory", lambda _: 1 << 19)
    monkeypatch.setattr(forecast.Forecast, "show_time", None)
    assert tune(model, prompts, tmp_path / "new", "--estimate") == 1
    assert "may not fit" in capsys.readouterr().out


def test_a_run_says_what_it_takes_and_ends_with_a_readable_adapter(
    model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapter"
    assert tune(model, prompts, out) == 0
    said = capsys.readouterr().out
    assert said.index("memory") < said.index("time, by a short try") < said.index("learn: ")
    assert "1 of 1 held-out answers are token for token those of plain decoding" in said
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert sorted(f.name for f in out.iterdir()) == [*files, "run"]
    assert (out / files[2]).stat().st_mode == (out / files[1]).stat().st_mode
    assert len(BitaAdapter.load(out).config.profile.rates) == 2


@pytest.mark.parametrize(
    ("owner", "name", "calls"), [(EngineAnswers, "answers", 2), (Tuner, "step", 7)]
)
def test_a_stopped_run_goes_on_to_the_same_adapter(
    tuned: Path,
    model: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: type,
    name: str,
    calls: int,
) -> None:
    """Stopped in its answers, or in training; the forecast takes four steps before."""
    out, made = tmp_path / "adapter", iter(range(calls))
    work = getattr(owner, name)

    def stopped(self: Any, *given: Any) -> Any:
        if next(made, None) is None:
            raise KeyboardInterrupt
        return work(self, *given)

    monkeypatch.setattr("adapters.tuning.trainer.CHECKPOINT_EVERY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopped)
        patch.setattr("adapters.tuning.generate.CONVERSATIONS_AT_ONCE", 2)
        assert tune(model, prompts, out) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (out / "adapter_config.json").exists()
    assert tune(model, prompts, out) == 0
    assert "time" not in capsys.readouterr().out
    assert same(out, tuned)


def test_another_draft_vocabulary_is_chosen_without_training_again(
    tuned: Path, model: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    shutil.copytree(tuned, out)
    log = (out / "run" / "log.jsonl").read_text()
    assert tune(model, prompts, out, "--draft-vocabulary", 40) == 0
    assert (out / "run" / "log.jsonl").read_text() == log
    before, after = BitaAdapter.load(tuned), BitaAdapter.load(out)
    assert before.draft_tokens is None
    assert after.draft_tokens is not None
    assert len(after.draft_tokens) == 40
    assert torch.equal(before.prompt_kv, after.prompt_kv)
    assert "40 tokens" in (out / "README.md").read_text()


def test_a_draft_vocabulary_that_is_too_small_is_refused(
    model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, model, prompts, tmp_path / "adapter", "--draft-vocabulary", 31)
    assert "--draft-vocabulary must be at least 32" in said


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        (("--max-tokens", 20), "max_tokens (24 then, 20 now)"),
        (("--temperature", 1), "temperature (0.0 then, 1.0 now)"),
        (("--seed", 1), "prompts, held-out prompts, seed (0 then, 1 now)"),
        (("--learning-rate", 0.01), "checkpoint.pt is of a run that differs in learning_rate"),
    ],
)
def test_a_run_of_other_settings_is_refused_by_their_names(
    tuned: Path,
    model: Path,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, object],
    differs: str,
) -> None:
    shutil.copytree(tuned / "run", tmp_path / "run")
    assert differs in refused(capsys, model, prompts, tmp_path, *more)


def test_answers_of_another_model_are_refused(
    tuned: Path, base: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tuned / "run", tmp_path / "run")
    assert "differs in tokenizer" in refused(capsys, base, prompts, tmp_path)


def test_a_damaged_checkpoint_is_named(
    tuned: Path, model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tuned / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half a file")
    assert "checkpoint.pt is damaged" in refused(capsys, model, prompts, tmp_path)


def test_sampled_answers_are_learnt_from_and_greedy_ones_evaluated(
    tuned: Path, model: Path, prompts: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert tune(model, prompts, tmp_path / name, "--temperature", 1) == 0
    assert same(tmp_path / "one", tmp_path / "two")
    sampled = tmp_path / "one" / "run"
    assert (sampled / "learn.jsonl").read_text() != (tuned / "run" / "learn.jsonl").read_text()
    held_out = (tuned / "run" / "held-out.jsonl").read_text()
    assert (sampled / "held-out.jsonl").read_text() == held_out


def test_a_model_without_a_chat_template_continues_plain_text(
    base: Path, prompts: Path, tmp_path: Path
) -> None:
    assert tune(base, prompts, tmp_path) == 0
    lines = (tmp_path / "run" / "learn.jsonl").read_text().splitlines()
    text = byte_tokenizer().decode(json.loads(lines[0])["token_ids"])
    assert text.startswith("What is ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "prompts.jsonl holds no prompts"),
        ('{"prompt": "a"}\n{"prompt": "b"\n', "prompts.jsonl, line 2: no JSON"),
        ('{"prompt": "a"}\n{"text": "b"}\n', "prompts.jsonl, line 2: expected an object"),
        ('{"prompt": "a"}\n', "at least two conversations"),
    ],
)
def test_a_prompt_file_that_is_none_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    assert said in refused(capsys, model, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--masks", 40), "tokens, too few for 40 masks"),
        (("--learning-rate", 2), "learning_rate must be above 0 and at most 1"),
        (("--max-tokens", 96), "must leave room for a prompt"),
        (("--max-tokens", 300, "--max-length", 400), "max_length (256) must leave room"),
        (("--temperature", -1), "temperature must be between 0 and 100"),
        (("--conversations", 0), "conversations must be at least 1"),
        (("--steps", 0), "steps must be at least 1"),
        (("--device", "tpu"), "device must be auto, cpu, cuda"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_one_sentence(
    model: Path,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[object, ...],
    said: str,
) -> None:
    assert said in refused(capsys, model, prompts, tmp_path, *more)


def test_a_folder_without_a_model_is_refused(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has no config.json" in refused(capsys, tmp_path, prompts, tmp_path / "out")


def test_a_full_disk_ends_a_run_in_a_sentence_and_it_goes_on_with_room(
    tuned: Path, model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First for the answers, then for a checkpoint, then for the adapter."""
    sizes = {f.name: f.stat().st_size for f in (tuned / "run").iterdir()}
    adapter = tuned / "adapter_model.safetensors"
    assert sizes["origin.json"] < sizes["learn.jsonl"] < adapter.stat().st_size
    for most, name in (
        (sizes["learn.jsonl"] - 10, "learn.jsonl"),
        (sizes["checkpoint.pt"] - 10, "checkpoint.pt"),
    ):
        with files_of_at_most(most):
            said = refused(capsys, model, prompts, tmp_path)
        assert f"{name} cannot be written: File too large" in said
        assert not [f for f in (tmp_path / "run").iterdir() if f.suffix in (".part", ".tmp")]
    assert tune(model, prompts, tmp_path) == 0
    assert same(tmp_path, tuned)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond fails half-way, as it does on a full disk; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
