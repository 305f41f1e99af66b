"""lm-eval's scores of one local task: with speculation, without, and from transformers itself.

make test-clients
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from benchmarks.workloads.conversations import DATA, Renderer
from models import DEFAULT_MODEL
from tests.clients.conftest import KEY, MODEL
from tests.served import Served, served

pytestmark = [
    pytest.mark.slow,
    # The client's own affair.
    pytest.mark.filterwarnings("ignore"),
]
DOCUMENTS = 16
SIDES = {
    "speculation": ("--tree", "comb"),
    "no speculation": ("--model", str(DEFAULT_MODEL), "--drafters", "bita"),
}
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
ARGUMENTS: Any = {"tokenizer": str(DEFAULT_MODEL), "tokenizer_backend": "huggingface"}

Scores: TypeAlias = dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents: a prompt, the four answers to choose from, which is right, and all as a text."""
    renderer = Renderer(DEFAULT_MODEL)
    lines = DATA.read_text().splitlines()[: 2 * DOCUMENTS]
    talks = [json.loads(line)["messages"][:4] for line in lines]
    spoken = [talk for talk in talks if all(message.get("content") for message in talk)]
    rng, documents = random.Random(0), []
    for talk in spoken[:DOCUMENTS]:
        prompt, answer = renderer.render(talk[:-1], None), talk[-1]["content"]
        others = sorted({other[-1]["content"] for other in spoken} - {answer})
        choices = [answer, *rng.sample(others, 3)]
        rng.shuffle(choices)
        document = {"prompt": prompt, "choices": choices, "label": choices.index(answer)}
        documents.append({**document, "answer": answer, "text": prompt + answer})
    assert len(documents) == DOCUMENTS
    path = tmp_path_factory.mktemp("lm-eval") / "documents.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def tasks(data: Path) -> list[Any]:
    """Answers to choose, texts to predict, answers to write."""
    pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "target_delimiter": "",
    }
    chosen = {
        **{"task": "choice", "output_type": "multiple_choice"},
        **{"doc_to_text": "{{prompt}}", "doc_to_choice": "choices", "doc_to_target": "label"},
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    predicted = {
        **{"task": "text", "output_type": "loglikelihood_rolling"},
        **{"doc_to_text": "", "doc_to_target": "{{text}}"},
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    written = {
        **{"task": "answer", "output_type": "generate_until"},
        **{"doc_to_text": "{{prompt}}", "doc_to_target": "{{answer}}"},
        "generation_kwargs": {
            "until": ["?", "!", "\n\n", ";", " and"],
            "max_gen_toks": 32,
            "do_sample": False,
        },
        "metric_list": [{"metric": "bleu"}, {"metric": "chrf"}],
    }
    manager = TaskManager(include_defaults=False)
    found = manager.load([{**shared, **task} for task in (chosen, predicted, written)])
    return list(found["tasks"].values())


def scores(model: Any, data: Path, **more: Any) -> Scores:
    """Of each task its metrics, and of each document all log-likelihoods and texts."""
    lm_eval = pytest.importorskip("lm_eval")
    found = lm_eval.simple_evaluate(model, tasks=tasks(data), bootstrap_iters=0, **more)
    return {
        name: {
            "metrics": {key: value for key, value in task.items() if "," in key},
            "documents": [sample["resps"] for sample in found["samples"][name]],
        }
        for name, task in found["results"].items()
    }


@pytest.fixture(scope="module")
def plain(data: Path) -> Scores:
    """From transformers itself."""
    pytest.importorskip("lm_eval.models.huggingface")
    arguments = {"pretrained": str(DEFAULT_MODEL), "dtype": "float32", "device": "cpu"}
    return scores("hf", data, model_args=arguments, batch_size=1)


@pytest.fixture(scope="module", params=SIDES.values(), ids=SIDES)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One that speculates, or one that has nothing to do so with."""
    pytest.importorskip("lm_eval")
    with served("--api-key", KEY, *request.param) as running:
        yield running
        counter = r"vllm:spec_decode_num_accepted_tokens_total\S* ([\d.]+)"
        accepted = re.search(counter, httpx.get(f"{running.url}/metrics").text)
        assert bool(accepted and float(accepted[1])) == ("--tree" in request.param)


@pytest.mark.parametrize("tokenized", [True, False], ids=["token ids", "texts"])
def test_scores_are_those_of_transformers(
    server: Served, data: Path, plain: Scores, tokenized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    arguments = {**ARGUMENTS, "model": MODEL, "base_url": f"{server.url}/v1/completions"}
    arguments |= {"tokenized_requests": tokenized, "num_concurrent": 4}
    assert scores("local-completions", data, model_args=arguments, batch_size=2) == near(plain)


def near(value: Any) -> Any:
    """Equal to numbers within 1e-3, wherever in it."""
    if isinstance(value, dict):
        return {key: near(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(near(item) for item in value)
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
