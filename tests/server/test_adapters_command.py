"""bita adapters, as a user types it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.card import NAME as CARD
from adapters.format import CONFIG, WEIGHTS, BitaAdapter
from adapters.profile import prior
from adapters.successor import Successor
from engine import answers
from engine.engine import Engine
from models import DEFAULT_ADAPTER, DEFAULT_MODEL
from server import cli
from server.commands.adapters.common import bytes_text
from tests import factories
from tests.adapters import official
from tests.adapters.official import MASKS, MASKS_NAME, PREFIX_NAME, PROMPTS
from tests.server.stub import TEMPLATE, VOCAB_SIZE, byte_tokenizer

SHORT = ["--conversations", "3", "--max-tokens", "12"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat model."""
    folder = tmp_path_factory.mktemp("model")
    official.llama(vocab=VOCAB_SIZE).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What the official code trained for it."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(official.trained(), folder / "model.safetensors")
    return folder


@pytest.fixture
def adapter(model: Path, checkpoint: Path, tmp_path: Path) -> Path:
    """The same, imported."""
    folder = tmp_path / "adapters" / "mine"
    assert run("import", checkpoint, "--model", model, "--out", folder) == 0
    return folder


def run(*words: object) -> int:
    return cli.main(["adapters", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a command that fails."""
    capsys.readouterr()
    assert run(*words) == 1
    said = capsys.readouterr().err
    assert said.startswith("bita adapters: ")
    assert said.count("\n") == 1
    return said


def with_successor(folder: Path) -> None:
    adapter = BitaAdapter.load(folder)
    config = replace(adapter.config, successor_rank=2)
    shapes = Successor.shapes(config.hidden_size, MASKS, 2)
    head = Successor(**{name: torch.zeros(shape) for name, shape in shapes.items()})
    replace(adapter, config=config, successor=head).save(folder)


@pytest.mark.parametrize("command", ["list", "show", "verify", "import", "export"])
def test_every_sub_command_explains_itself(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(command, "--help")
    assert exit_.value.code == 0
    assert f"example:\n  bita adapters {command} " in capsys.readouterr().out


def test_import_writes_an_adapter_and_its_card(
    model: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapters" / "mine"
    assert run("import", checkpoint, "--model", model, "--out", adapter) == 0
    said = capsys.readouterr().out
    assert f"{PROMPTS} prompts, {MASKS} masks, 736 parameters" in said
    assert f"bita adapters verify {adapter} --model {model} --update" in said
    assert sorted(f.name for f in adapter.iterdir()) == sorted([CONFIG, WEIGHTS, CARD])
    assert [f.name for f in adapter.parent.iterdir()] == ["mine"]
    assert "never measured" in (adapter / CARD).read_text()
    assert torch.equal(BitaAdapter.load(adapter).mask_embeddings, official.trained()[MASKS_NAME])


def test_import_says_what_a_user_should_know(
    model: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"rope_theta": 500000.0}))
    assert run("import", checkpoint, "--model", model, "--out", tmp_path / "new") == 0
    assert "note: The official code ignores rope_theta" in capsys.readouterr().out
    assert "ignores rope_theta" in (tmp_path / "new" / CARD).read_text()


def spoil(**tensors: torch.Tensor | None) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content: dict[str, Any] = official.trained()
        content |= {{"prefix": PREFIX_NAME, "masks": MASKS_NAME}[k]: v for k, v in tensors.items()}
        kept = {name: tensor for name, tensor in content.items() if tensor is not None}
        save_file(kept, folder / "model.safetensors")

    return change


NAN = torch.full((MASKS, official.HIDDEN), float("nan"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (shutil.rmtree, "there is no file or folder"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "is damaged"),
        (spoil(masks=NAN), "not finite"),
        (spoil(prefix=None), "not a checkpoint of the paper's official code"),
        (spoil(prefix=torch.zeros(PROMPTS, 64)), "need 128"),
        (lambda f: (f / "config.json").write_text('{"vocab_size": 9}'), "vocab_size is 9"),
    ],
)
def test_import_of_something_else_leaves_nothing(
    model: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    match: str,
) -> None:
    change(checkpoint)
    out = tmp_path / "out" / "new"
    said = refused(capsys, "import", checkpoint, "--model", model, "--out", out)
    assert match in said
    assert str(checkpoint) in said
    assert list(out.parent.iterdir()) == []


def test_import_overwrites_nothing(
    model: Path, checkpoint: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (adapter / CONFIG).read_bytes()
    said = refused(capsys, "import", checkpoint, "--model", model, "--out", adapter)
    assert "exists already" in said
    assert (adapter / CONFIG).read_bytes() == before


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "nobody"}'])
def test_import_needs_a_model(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    said = refused(capsys, "import", checkpoint, "--model", folder, "--out", tmp_path / "new")
    assert str(folder) in said
    assert not (tmp_path / "new").exists()


def test_list_shows_whole_adapters_and_says_what_is_wrong_with_others(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = adapter.parent
    shutil.copytree(adapter, folder / "cut[short]")
    (folder / "cut[short]" / WEIGHTS).write_bytes(b"")
    shutil.copytree(adapter, folder / "lora")
    (folder / "lora" / CONFIG).write_text('{"peft_type": "LORA"}')
    shutil.copytree(adapter, folder / "odd")
    record = json.loads((adapter / CONFIG).read_text())
    (folder / "odd" / CONFIG).write_text(json.dumps({**record, "tuning": []}))
    (folder / "notes").mkdir()
    capsys.readouterr()
    assert run("list", folder) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if not line.startswith("broken")}
    assert rows.keys() == {"name", "mine"}
    assert "llama 2x32, vocab 258" in rows["mine"]
    assert "736" in rows["mine"]
    assert "unmeasured" in rows["mine"]
    broken = {line.split()[1].rstrip(":"): line for line in lines if line.startswith("broken")}
    assert set(broken) == {"cut[short]", "lora", "odd"}
    assert WEIGHTS in broken["cut[short]"]
    assert "format must be" in broken["lora"]
    assert "tuning must be an object" in broken["odd"]


def test_list_of_an_adapter_itself_and_of_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("list", adapter) == 0
    assert "mine" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert run("list", tmp_path / "empty") == 0
    assert "no adapters" in capsys.readouterr().out
    assert "there is no folder" in refused(capsys, "list", tmp_path / "none")


def test_show_tells_sizes_rates_and_origin(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("show", adapter) == 0
    said = capsys.readouterr().out
    assert "llama 2x32, vocab 258" in said
    assert "2 x 2 x 4 x 5 x 8" in said
    assert "never measured" in said
    assert "official BiTA checkpoint" in said
    row = next(line for line in said.splitlines() if line.split()[:1] == ["2"])
    assert row.split() == ["2", "0.263", "0.146", "0.081", "0.058", "0.043", "0.591", "0"]


@pytest.mark.parametrize(
    "words", [("show",), ("export", "--out", "x.safetensors"), ("verify", "--model", "none")]
)
def test_a_folder_that_is_no_adapter_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    command, *rest = words
    assert str(tmp_path) in refused(capsys, command, tmp_path, *rest)
    assert "there is no folder" in refused(capsys, command, tmp_path / "none", *rest)


def test_export_is_imported_again(
    adapter: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, again = tmp_path / "official.safetensors", tmp_path / "again"
    assert run("export", adapter, "--out", file) == 0
    assert f"prompt_num {PROMPTS}, mask_num {MASKS}" in capsys.readouterr().out
    exported, expected = load_file(file), official.trained()
    assert exported.keys() == expected.keys()
    assert all(torch.equal(exported[name], expected[name]) for name in expected)
    assert run("import", file, "--model", model, "--out", again) == 0
    assert (again / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()


def test_export_drops_the_successor_bias_only_when_told(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_successor(adapter)
    file = tmp_path / "official.safetensors"
    assert "--drop-successor" in refused(capsys, "export", adapter, "--out", file)
    assert not file.exists()
    assert run("export", adapter, "--out", file, "--drop-successor") == 0
    assert load_file(file).keys() == official.trained().keys()


def test_export_refuses_other_names_and_files_that_are_there(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "end in .safetensors" in refused(capsys, "export", adapter, "--out", tmp_path / "x.bin")
    file = tmp_path / "x.safetensors"
    file.write_text("mine")
    assert "exists already" in refused(capsys, "export", adapter, "--out", file)
    assert file.read_text() == "mine"


def test_verify_compares_and_measures(
    adapter: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {f.name: f.read_bytes() for f in adapter.iterdir()}
    assert run("verify", adapter, "--model", model, *SHORT) == 0
    said = capsys.readouterr().out
    assert "3 of 3 answers are token for token those of plain decoding" in said
    assert "hit rates, by depth and rank" in said
    assert {f.name: f.read_bytes() for f in adapter.iterdir()} == before


@pytest.mark.parametrize("successor", [False, True])
def test_verify_replaces_assumed_rates_by_measured_ones(
    adapter: Path, model: Path, capsys: pytest.CaptureFixture[str], successor: bool
) -> None:
    if successor:
        with_successor(adapter)
    weights = (adapter / WEIGHTS).read_bytes()
    assert run("verify", adapter, "--model", model, *SHORT, "--update") == 0
    config = BitaAdapter.load(adapter).config
    assert config.profile.counts[0] == 33
    assert config.profile.measured
    for row, count, before in zip(
        config.profile.rates, config.profile.counts, prior(MASKS).rates, strict=True
    ):
        assert len(row) == 10 if count else row == before
    assert 1 <= config.tuning["acceptance_length_comb"] <= 4
    assert config.tuning["origin"] == "official BiTA checkpoint"
    assert "held-out" in (adapter / CARD).read_text()
    assert (adapter / WEIGHTS).read_bytes() == weights
    assert sorted(f.name for f in adapter.iterdir()) == sorted([CONFIG, WEIGHTS, CARD])
    capsys.readouterr()
    assert run("verify", adapter, "--model", model, *SHORT[:-1], "6", "--update") == 0
    assert "were of 33 places" in capsys.readouterr().out


def test_verify_shows_how_much_sooner_the_embedded_model_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--model", DEFAULT_MODEL, "--device", "cpu", "--max-tokens", "24"]
    assert run("verify", DEFAULT_ADAPTER, *words, "--conversations", "4") == 0
    said = capsys.readouterr().out
    assert "4 of 4" in said
    assert float(said.split(" tokens a forward")[0].split()[-1]) > 1.5


def wrong_with_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let answers with an adapter end in another token."""

    class Wrong(answers.EngineAnswers):
        def answers(self, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
            found = super().answers(prompts, max_tokens)
            engine: Engine = self.engine
            if engine.adapters:
                found[1][-1] += 1
            return found

    monkeypatch.setattr(answers, "EngineAnswers", Wrong)


def test_verify_fails_where_an_answer_differs_in_float32(
    adapter: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_with_an_adapter(monkeypatch)
    before = (adapter / CONFIG).read_bytes()
    capsys.readouterr()
    assert run("verify", adapter, "--model", model, *SHORT, "--update") == 1
    said = capsys.readouterr()
    assert "2 of 3 answers" in said.out
    assert "prompt 2: first difference at token 12" in said.out
    assert "NOT lossless" in said.err
    assert (adapter / CONFIG).read_bytes() == before


def test_a_difference_in_16_bit_is_counted_and_no_failure(
    adapter: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_with_an_adapter(monkeypatch)
    words = ["--model", model, *SHORT, "--dtype", "bfloat16"]
    assert run("verify", adapter, *words) == 0
    assert "this is no failure" in capsys.readouterr().out


def test_verify_answers_the_users_prompts(
    adapter: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": role, "content": "ab"} for role in ("system", "user", "assistant", "user")]
    lines = [{"prompt": "cd"}, {"messages": turns}, {"prompt": "x" * 300}]
    file = tmp_path / "prompts.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    assert run("verify", adapter, "--model", model, "--prompts", file, *SHORT) == 0
    said = capsys.readouterr().out
    assert "1 prompts do not fit" in said
    assert "2 of 2 answers" in said


def test_verify_without_a_chat_template_continues_texts(
    adapter: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    (plain / "chat_template.jinja").unlink()
    assert run("verify", adapter, "--model", plain, *SHORT) == 0
    assert "3 of 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "does not exist"),
        (b"", "holds no prompts"),
        (b"{", "line 1"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"prompt": ""}', "line 1: prompt must be a text"),
        (b'{"prompt": "' + b"a" * 5000 + b'"}', "no prompt left"),
    ],
)
def test_prompts_that_are_none_are_refused(
    adapter: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    match: str,
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "chat_template.jinja").unlink()
    file = tmp_path / "prompts.jsonl"
    if content is not None:
        file.write_bytes(content)
    words = ["--model", bare, "--prompts", file, *SHORT]
    capsys.readouterr()
    assert run("verify", adapter, *words) == 1
    assert match in capsys.readouterr().err


def test_verify_refuses_models_that_are_not_the_base(
    adapter: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official.llama().save_pretrained(tmp_path / "other")
    said = refused(capsys, "verify", adapter, "--model", tmp_path / "other")
    assert "is not for" in said
    assert "vocab_size" in said
    assert "no config.json" in refused(capsys, "verify", adapter, "--model", tmp_path / "none")
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"no")
    assert "cannot be loaded" in refused(capsys, "verify", adapter, "--model", broken)
    shutil.copy(model / "model.safetensors", broken)
    (broken / "tokenizer.json").write_text("{")
    assert "tokenizer.json cannot be read" in refused(capsys, "verify", adapter, "--model", broken)


def test_verify_refuses_a_tree_nobody_knows(
    adapter: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "verify", adapter, "--model", model, *SHORT, "--tree", "oak")
    assert "'oak'" in said


@pytest.mark.parametrize("flag", ["--conversations", "--max-tokens"])
def test_counts_are_at_least_one(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("verify", "a", "--model", "m", flag, "0")
    assert "at least 1" in capsys.readouterr().err


def test_verify_leaves_rates_alone_where_it_cannot_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Falcon has attention of its own: answers are compared, hit rates are not measured."""
    model = factories.tiny_model("Falcon")
    model.save_pretrained(tmp_path / "falcon")
    byte_tokenizer().save(str(tmp_path / "falcon" / "tokenizer.json"))
    factories.random_adapter(model).save(tmp_path / "adapter")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "!!!"}')  # low token ids
    words = ["--model", tmp_path / "falcon", "--prompts", prompts, *SHORT]
    assert run("verify", tmp_path / "adapter", *words) == 0
    assert "no hit rates" in capsys.readouterr().out
    assert "was not updated" in refused(capsys, "verify", tmp_path / "adapter", *words, "--update")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 19, "1.5 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert bytes_text(count) == text
