"""One HTTP request as engine requests, and their outputs as one flow."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from engine.errors import EngineDead, RequestError
from engine.request import FinishReason, Grammar, Request, RequestOutput, SpecReceipt
from engine.speculation.prediction import Alignment
from server.logging import RequestRecord
from server.prompts import check_token_ids
from server.schemas.common import GenerationRequest, Speculation
from server.serving import Serving

_USUAL = Speculation()
"""Of requests that say nothing about it."""

IndexedOutputs: TypeAlias = AsyncGenerator[tuple[int, RequestOutput], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What is generated for one HTTP request.

    requests: an engine request a choice; those of one prompt follow each other, `num_choices` of
    them. completion_id, created, model, fingerprint, tier: as answered. prompt_field: what the
    HTTP request calls the prompt.
    """

    completion_id: str
    created: int
    model: str
    fingerprint: str
    num_choices: int
    requests: list[Request]
    prompt_field: str = "prompt"
    tier: str | None = None

    def header(self, kind: str) -> dict[str, Any]:
        """The keys every answer and every chunk of it begins with."""
        header = {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
        return header if self.tier is None else {**header, "service_tier": self.tier}


def plan(
    serving: Serving,
    body: GenerationRequest,
    prompts: Sequence[list[int]],
    *,
    prefix: str,
    max_tokens: int | None,
    logprobs: int | None,
    prediction: list[int] | None = None,
    grammar: Grammar | None = None,
    prompt_field: str = "prompt",
    kept_tokens: list[int] | None = None,
) -> Job:
    """The engine requests of `body` for these prompts.

    prefix: what the answer's id begins with, its separator included. kept_tokens: special tokens
    that are part of the answers' text.

    Raises the 404 of its model, or the 400 of token ids the model does not have.
    """
    adapter, info = serving.adapter_for(body.model), serving.client.info
    samplings = [body.sampling(choice, max_tokens, logprobs) for choice in range(body.num_choices)]
    check_token_ids(list(samplings[0].logit_bias), info.vocab_size, "logit_bias")
    check_token_ids(list(samplings[0].stop_token_ids), info.vocab_size, "stop_token_ids")
    # Ours, not the client's x-request-id: the engine needs ids that are never used twice.
    completion_id = f"{prefix}{uuid.uuid4().hex}"
    speculation = body.speculation or _USUAL
    choices = [(prompt, sampling) for prompt in prompts for sampling in samplings]
    requests = [
        Request(
            request_id=f"{completion_id}-{index}",
            token_ids=prompt,
            sampling=sampling,
            adapter=adapter,
            speculation=speculation.enabled,
            drafters=speculation.drafters,
            prediction=prediction or [],
            trace=speculation.trace,
            priority=body.order,
            cache_salt=body.cache_salt or "",
            grammar=grammar,
            kept_tokens=kept_tokens or [],
        )
        for index, (prompt, sampling) in enumerate(choices)
    ]
    return Job(
        completion_id,
        int(time.time()),
        body.model,
        info.fingerprint,
        len(samplings),
        requests,
        prompt_field,
        body.tier,
    )


class Tally:
    """What the outputs of a job add up to; it also fills in the request's record."""

    def __init__(self, job: Job, record: RequestRecord) -> None:
        self._job, self._record = job, record
        self._latest: dict[int, RequestOutput] = {}
        # Followed here and not only in the engine: stop strings have cut the outputs by now, and
        # the counts are the same however many drafts the engine had time for.
        self._predictions = [Alignment(r.prediction) for r in job.requests if r.prediction]
        record.completion_id, record.model = job.completion_id, job.model
        record.adapter, record.sampling = job.requests[0].adapter, job.requests[0].sampling

    def add(self, index: int, output: RequestOutput) -> None:
        """Count one output of choice `index`."""
        known = index in self._latest
        self._latest[index] = output
        if self._predictions:
            self._predictions[index].extend(output.token_ids)
        if output.token_ids:
            self._record.saw_token()
        if output.timing is not None:
            self._record.saw_start(self._job.requests[index], output.timing)
        self._record.output_tokens += len(output.token_ids)
        if output.finish_reason is not None:
            self._record.finish_reasons.append(str(output.finish_reason))
        elif known:
            return  # what follows is as it was
        usage = self.usage()
        self._record.prompt_tokens = usage["prompt_tokens"]
        self._record.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]

    def usage(self) -> dict[str, Any]:
        """OpenAI's token counts; a prompt counts once, however many choices it has."""
        firsts = [
            output for index, output in self._latest.items() if index % self._job.num_choices == 0
        ]
        prompt = sum(output.num_prompt_tokens for output in firsts)
        completion = sum(output.num_generated_tokens for output in self._latest.values())
        cached = sum(output.num_cached_tokens for output in firsts)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if self._predictions:
            usage["completion_tokens_details"] = {
                "accepted_prediction_tokens": sum(p.accepted for p in self._predictions),
                "rejected_prediction_tokens": sum(p.rejected for p in self._predictions),
            }
        return usage

    def metrics(self) -> dict[str, Any]:
        """What speculation did for this request, in vLLM's shape."""
        total = SpecReceipt()
        for receipt in (output.speculation for output in self._latest.values()):
            total.num_forwards += receipt.num_forwards
            total.num_draft_tokens += receipt.num_draft_tokens
            total.num_accepted_tokens += receipt.num_accepted_tokens
            missing = len(receipt.accepted_histogram) - len(total.accepted_histogram)
            total.accepted_histogram.extend([0] * missing)
            for accepted, count in enumerate(receipt.accepted_histogram):
                total.accepted_histogram[accepted] += count
        drafted, accepted_tokens = total.num_draft_tokens, total.num_accepted_tokens
        return {
            "speculative_decoding": {
                "mean_acceptance_length": round(total.mean_acceptance_length, 4),
                "draft_acceptance_rate": round(accepted_tokens / drafted, 4) if drafted else 0.0,
                "acceptance_histogram": total.accepted_histogram,
                "num_spec_steps": total.num_forwards,
                "num_accepted_draft_tokens": accepted_tokens,
                "num_draft_tokens": drafted,
                # Trees have no fixed length: the longest path accepted in this request.
                "num_spec_tokens": max(len(total.accepted_histogram) - 1, 0),
            }
        }


async def run(serving: Serving, job: Job, tally: Tally) -> IndexedOutputs:
    """Outputs of all choices as they come, with the choice's index; closing it aborts them all.

    Raises whatever the engine raises for any of them.
    """
    streams = [
        # `Client.generate` is an async generator; its type cannot say so without saying more.
        serving.metrics.generation.observe(
            cast("AsyncGenerator[RequestOutput, None]", serving.client.generate(request))
        )
        for request in job.requests
    ]
    try:
        async with aclosing(_merge(streams)) as outputs:
            async for index, output in outputs:
                if output.finish_reason is FinishReason.ABORT:
                    raise EngineDead("the engine ended the request")
                tally.add(index, output)
                yield index, output
    except RequestError as error:
        if error.field == "prompt":
            error.field = job.prompt_field
        raise


async def _merge(streams: Sequence[AsyncGenerator[RequestOutput, None]]) -> IndexedOutputs:
    if len(streams) == 1:
        async with aclosing(streams[0]) as outputs:
            async for output in outputs:
                yield 0, output
        return
    # One place: a slow reader holds back every stream.
    inbox: asyncio.Queue[tuple[int, RequestOutput | Exception | None]] = asyncio.Queue(maxsize=1)

    async def pump(index: int, stream: AsyncGenerator[RequestOutput, None]) -> None:
        try:
            async with aclosing(stream):
                async for output in stream:
                    await inbox.put((index, output))
            await inbox.put((index, None))
        except Exception as error:
            await inbox.put((index, error))

    tasks = [asyncio.create_task(pump(*indexed)) for indexed in enumerate(streams)]
    try:
        running = len(streams)
        while running:
            index, item = await inbox.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
