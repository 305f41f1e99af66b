"""Sides without a server: our engine and transformers' own `generate`, a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.sessions import Call, Session
from engine.engine import Engine
from engine.model.loaded import LoadedModel
from engine.request import Request, SamplingParams


class Side(Protocol):
    """Something that answers."""

    def play(self, sessions: Sequence[Session], streams: int, tokenizer: Tokenizer) -> int:
        """Play all sessions, `streams` at once; how many tokens were answered."""
        ...


class Ours:
    """An engine, with its own batching."""

    def __init__(self, engine: Engine, speculation: bool, temperature: float = 0.0) -> None:
        self.engine, self.speculation, self.temperature = engine, speculation, temperature

    def __call__(self, calls: Sequence[Call]) -> list[list[int]]:
        """Token ids of the answers."""
        tokens: list[list[int]] = [[] for _ in calls]
        for i, call in enumerate(calls):
            self._add(str(i), call)
        while self.engine.has_work:
            for output in self.engine.step():
                tokens[int(output.request_id)] += output.token_ids
        return tokens

    def play(self, sessions: Sequence[Session], streams: int, tokenizer: Tokenizer) -> int:
        """As `Side.play`. Who is answered goes on at once, and nobody waits for anybody."""
        waiting = iter(sessions)
        running: dict[str, tuple[Session, list[int]]] = {}
        calls = itertools.count()

        def ask(session: Session | None) -> None:
            """Its next call, or the first one of the next session that has any."""
            while session is not None:
                call = session.advance()
                if call is not None:
                    name = str(next(calls))
                    self._add(name, call)
                    running[name] = session, []
                    return
                session = next(waiting, None)

        for session in itertools.islice(waiting, streams):
            ask(session)
        tokens = 0
        while running:
            for output in self.engine.step():
                session, ids = running[output.request_id]
                ids += output.token_ids
                if output.finish_reason is not None:
                    del running[output.request_id]
                    tokens += len(ids)
                    session.answer(tokenizer.decode(ids))
                    ask(session)
        return tokens

    def _add(self, name: str, call: Call) -> None:
        params = SamplingParams(
            temperature=self.temperature, max_tokens=call.max_tokens, ignore_eos=call.ignore_eos
        )
        self.engine.add(Request(name, call.token_ids, params, speculation=self.speculation))


class Generate:
    """`generate` as strong as it is without changing it: sdpa, a cache kept between turns.

    lookup: tokens drafted from the prompt (`prompt_lookup_num_tokens`); one stream only.
    """

    def __init__(
        self, folder: str, loaded: LoadedModel, temperature: float = 0.0, lookup: int | None = None
    ) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=loaded.dtype, attn_implementation="sdpa", local_files_only=True
        )
        self.model.eval().to(loaded.device)
        self.device = loaded.device
        self.options: dict[str, Any] = {"do_sample": temperature > 0, "pad_token_id": 0}
        if temperature > 0:
            self.options |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        if lookup is not None:
            self.options["prompt_lookup_num_tokens"] = lookup
        self.cache: Any = None
        self.cached: list[int] = []

    @torch.inference_mode()
    def __call__(self, calls: Sequence[Call]) -> list[list[int]]:
        """Token ids of the answers; several calls are one batch, padded on the left."""
        if len(calls) > 1:
            return self._batch(calls)
        prompt = calls[0].token_ids
        if self.cache is None or prompt[: len(self.cached)] != self.cached:
            self.cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([prompt], device=self.device)
        mask = torch.ones_like(ids)
        output = self._generate(ids, mask, calls[0], past_key_values=self.cache)[0].tolist()
        self.cached = output[: self.cache.get_seq_length()]
        return [output[len(prompt) :]]

    def play(self, sessions: Sequence[Session], streams: int, tokenizer: Tokenizer) -> int:
        """As `Side.play`. A batch waits for its longest answer."""
        waiting = list(reversed(sessions))
        running: list[Session] = []
        tokens = 0
        while waiting or running:
            while waiting and len(running) < streams:
                running.append(waiting.pop())
            asked = [(s, call) for s in running if (call := s.advance()) is not None]
            running = [session for session, _ in asked]
            if not asked:
                continue
            answers = self([call for _, call in asked])
            for session, ids in zip(running, answers, strict=True):
                session.answer(tokenizer.decode(ids))
                tokens += len(ids)
        return tokens

    def _batch(self, calls: Sequence[Call]) -> list[list[int]]:
        prompts = [call.token_ids for call in calls]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device
        )
        rows = self._generate(ids, mask, calls[0])[:, width:].tolist()
        if calls[0].ignore_eos:
            return rows
        ends = self.model.generation_config.eos_token_id
        eos = set(ends if isinstance(ends, list) else [ends])
        return [row[: next((i + 1 for i, t in enumerate(row) if t in eos), None)] for row in rows]

    def _generate(
        self, ids: torch.Tensor, mask: torch.Tensor, call: Call, **more: Any
    ) -> torch.Tensor:
        options = dict(self.options)
        if call.ignore_eos:
            options["eos_token_id"] = NO_TOKEN
        output: torch.Tensor = self.model.generate(
            ids, attention_mask=mask, max_new_tokens=call.max_tokens, **options, **more
        )
        return output


NO_TOKEN = -1
"""An end of sequence that never comes."""
