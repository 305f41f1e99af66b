"""How much faster a text comes that is mostly known: the API's `prediction` against plain decoding.

An edit task: the answer is known but for its edits. What the model says is taken as the edited
text, and the prediction is that text before the edits: here and there a few tokens replaced, left
out or put in, until only so many of the predicted tokens are right. Texts are sampled with a seed
and run past their end, so that they are long and do not repeat themselves as greedy ones of a
small model do. Every side gives the same tokens, which is checked. Sides take turns within a round.

    python -m benchmarks.prediction --dtype float32
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import loading, report
from benchmarks.workloads.conversations import Conversations
from engine.config import EngineConfig
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.speculation.prediction import Alignment
from engine.speculation.sources import NAMES

SIDES = {
    "plain": (),
    "ngram": ("ngram",),
    "bita": ("bita",),
    "prediction": ("prediction",),
    "all": NAMES,
}


@dataclass(slots=True)
class Side:
    """seconds: of every round. tokens, forwards: of the last one. answers: to every prompt."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    forwards: int = 0
    answers: list[list[int]] = field(default_factory=list)


def before_the_edits(
    text: list[int], right: float, edit: int, vocabulary: list[int], rng: random.Random
) -> list[int]:
    """A text of which about `right` of the tokens are in `text`, in order.

    edit: mean tokens an edit touches. vocabulary: tokens that wrong ones are drawn from.
    """
    old: list[int] = []
    gap = edit * right / (1 - right)
    at = 0
    while at < len(text):
        kept = max(1, round(rng.expovariate(1 / gap)))
        old += text[at : at + kept]
        at += kept
        size = max(1, round(rng.uniform(0.5, 1.5) * edit))
        kind = rng.choice(("replaced", "left out", "put in"))
        if kind != "put in":  # in the old text: the edit left it out
            at += size
        if kind != "left out":
            old += rng.choices(vocabulary, k=size)
    return old


def run(engine: Engine, requests: list[Request], streams: int, side: Side) -> None:
    """Serve all requests, `streams` at once."""
    waiting, tokens = list(requests), {r.request_id: list[int]() for r in requests}
    before, started = engine.stats().num_forwards, time.perf_counter()
    while waiting or engine.has_work:
        while waiting and len(engine.sequences) < streams:
            engine.add(waiting.pop(0))
        for output in engine.step():
            tokens[output.request_id] += output.token_ids
    side.seconds.append(time.perf_counter() - started)
    side.forwards = engine.stats().num_forwards - before
    side.answers = [tokens[r.request_id] for r in requests]
    side.tokens = sum(map(len, side.answers))


def main() -> None:
    """Print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    loading.add_arguments(parser)
    parser.add_argument("--right", type=float, default=0.9, help="share predicted right")
    parser.add_argument("--edit", type=int, default=4, help="mean tokens of an edit")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the texts")
    parser.add_argument("--max-tokens", type=int, default=256, help="length of the texts")
    parser.add_argument("--texts", type=int, default=6, help="edited in every run")
    parser.add_argument("--streams", type=int, default=1, help="texts at once")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side")
    parser.add_argument(
        "--sides", nargs="+", default=list(SIDES)[1:], choices=list(SIDES)[1:], help="beside plain"
    )
    report.add_arguments(parser)
    args = parser.parse_args()

    loaded, adapter = loading.load(args)
    engine = Engine(EngineConfig(model=str(args.model)), loaded, {"bita": adapter})
    conversations = Conversations(args.model)
    calls = [conversations.session(number).advance() for number in range(args.texts)]
    prompts = [call.token_ids for call in calls if call is not None]

    def requests(drafters: tuple[str, ...], predictions: list[list[int]]) -> list[Request]:
        return [
            Request(
                request_id=str(i),
                token_ids=prompt,
                sampling=SamplingParams(
                    temperature=args.temperature,
                    seed=i,
                    max_tokens=args.max_tokens,
                    ignore_eos=True,
                ),
                drafters={name: name in drafters for name in NAMES},
                prediction=prediction,
            )
            for i, (prompt, prediction) in enumerate(zip(prompts, predictions, strict=True))
        ]

    texts = Side()
    run(engine, requests((), [[] for _ in prompts]), args.streams, texts)
    rng = random.Random(0)
    vocabulary = sorted({token for text in texts.answers for token in text})
    predictions = [
        before_the_edits(text, args.right, args.edit, vocabulary, rng) for text in texts.answers
    ]
    alignments = [Alignment(prediction) for prediction in predictions]
    for alignment, text in zip(alignments, texts.answers, strict=True):
        alignment.extend(text)
    accepted = sum(a.accepted for a in alignments)

    sides = {name: Side() for name in ("plain", *args.sides)}
    bar = tqdm(total=args.rounds * len(sides), unit="run")
    for _ in range(args.rounds):
        for name, side in sides.items():
            run(engine, requests(SIDES[name], predictions), args.streams, side)
            bar.update()
    bar.close()
    results: dict[str, Any] = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": str(loaded.device),
        "machine": report.machine(),
        "settings": {k: v for k, v in vars(args).items() if not isinstance(v, Path)},
        "predicted_right": accepted / sum(map(len, predictions)),
        "same_tokens": all(side.answers == texts.answers for side in sides.values()),
        "sides": {},
    }
    table = report.Table(
        f"an edit task, {results['dtype']} on {results['device']}",
        ("side", "tokens/s", "tokens/forward", "against plain"),
    )
    for name, side in sides.items():
        row = {
            "tokens_per_second": side.tokens / statistics.median(side.seconds),
            "tokens_per_forward": side.tokens / side.forwards,
            "speedup_vs_plain": report.ratio(sides["plain"].seconds, side.seconds),
        }
        results["sides"][name] = row
        table.add(name, *row.values())
    report.publish([table], results, args.markdown)


if __name__ == "__main__":
    main()
