"""Long texts: copying and editing what the model wrote itself, and code-like text.

bita-concierge cannot be asked to copy or to write programs, so these are the nearest that any model
can be given: a text that begins again what stands before it, an answer that is known but for every
tenth word, and function definitions in JSON that go on. All run to their token limit, past the end
of an answer, where a small model repeats itself: good for any drafter.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from benchmarks.in_process import Ours
from benchmarks.sessions import Session, Single, user_name
from benchmarks.workloads.conversations import DATA, Conversations, ToolCalls
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model.loader import load_model

DOCUMENTS = 8
LENGTH = 256
CHANGED = 0.1
"""Share of the words of a document that an edit replaces."""


class Documents:
    """Texts of 256 tokens that the model wrote greedily after first turns of conversations."""

    def __init__(self, model: Path, data: Path = DATA) -> None:
        first = Conversations(model, data, turns=1)
        self.renderer = first.renderer
        sessions = (first.session(number) for number in range(DOCUMENTS))
        asked = (session.advance() for session in sessions)
        self.calls = [
            replace(call, max_tokens=LENGTH, ignore_eos=True) for call in asked if call is not None
        ]
        config = EngineConfig(model=str(model), max_num_seqs=DOCUMENTS)
        engine = Engine(config, load_model(model, "cpu", "float32"), {})
        decode = self.renderer.tokenizer.decode
        self.texts = [
            decode(ids, skip_special_tokens=False)
            for ids in Ours(engine, speculation=False)(self.calls)
        ]


class Copy(Documents):
    """A document in the prompt, and then its beginning again."""

    def session(self, number: int) -> Session:
        """As `Workload.session`."""
        place = number % len(self.calls)
        first = self.calls[place].prompt
        prompt = f"{user_name(number)}\n{first}{self.texts[place]}\n{first}"
        return Single(self.renderer.call(prompt, LENGTH, ignore_eos=True))


class Edit(Documents):
    """An answer predicted right but for a word in ten; the prompts are short and recur."""

    def session(self, number: int) -> Session:
        """As `Workload.session`."""
        place = number % len(self.calls)
        prediction = edited(self.texts[place], CHANGED, seed=number)
        return Single(replace(self.calls[place], prediction=prediction))


class Code:
    """Function definitions in JSON, the first given, to be gone on with."""

    def __init__(self, model: Path, data: Path = DATA) -> None:
        calls = ToolCalls(model, data)
        self.renderer = calls.renderer
        self.tools = [place.tools for place in calls.places if place.tools]

    def session(self, number: int) -> Session:
        """As `Workload.session`."""
        tools = self.tools[number % len(self.tools)]
        system = {"role": "system", "content": f"You help {user_name(number)} to book things."}
        whole = self.renderer.render([system], tools)
        given = whole[: whole.index("}}}") + 3]
        return Single(self.renderer.call(given + "\n", LENGTH // 2, ignore_eos=True))


def edited(text: str, share: float, seed: int) -> str:
    """`text` with a share of its words, chosen by `seed`, replaced by others of its own."""
    words, chance = text.split(" "), random.Random(seed)
    return " ".join(chance.choice(words) if chance.random() < share else w for w in words)
