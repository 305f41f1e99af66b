"""POST /v1/completions"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation, prompts
from server.answer import answer
from server.body import JsonRoute
from server.completion_reply import CompletionReply
from server.context import record_of
from server.openapi import answered_by
from server.schemas.answers import Completion
from server.schemas.completions import CompletionRequest
from server.serving import Serving, ServingDep
from server.warnings import note_ignored

router = APIRouter(tags=["completions"], route_class=JsonRoute)


CHUNK = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "bita-concierge",
    "system_fingerprint": "fp_1",
    "choices": [
        {"index": 0, "text": " there", "logprobs": None, "finish_reason": None, "stop_reason": None}
    ],
}


@router.post("/v1/completions", responses=answered_by(Completion, CHUNK))
async def create_completion(
    body: CompletionRequest, request: Request, serving: ServingDep
) -> Response:
    """Continue one prompt or several, whole or as a stream of server-sent events."""
    serving.check_ready(len(body.prompts) * body.num_choices)
    note_ignored(request, body)
    serving.adapter_for(body.model)
    job = generation.plan(
        serving,
        body,
        [await _token_ids(prompt, body, serving) for prompt in body.prompts],
        prefix="cmpl-",
        max_tokens=body.token_limit,
        logprobs=body.logprobs,
        grammar=body.constraint,
    )
    tally = generation.Tally(job, record_of(request))
    texts = [_text(prompt, body, serving) for prompt in body.prompts] if body.echo else []
    reply = CompletionReply(body, job, tally, serving.token_texts, texts)
    return await answer(
        request, reply, generation.run(serving, job, tally), stream=bool(body.stream)
    )


async def _token_ids(
    prompt: str | list[int], body: CompletionRequest, serving: Serving
) -> list[int]:
    if isinstance(prompt, str):
        special = body.add_special_tokens is not False
        token_ids = await prompts.encode(serving.client.tokenizer, prompt, special, "prompt")
        if serving.template is None:  # with one, tuning would take it for what a user says
            serving.prompt_log.add({"prompt": prompt})
        return token_ids
    prompts.check_token_ids(prompt, serving.client.info.vocab_size, "prompt")
    return prompt


def _text(prompt: str | list[int], body: CompletionRequest, serving: Serving) -> str:
    if isinstance(prompt, str):
        return prompt
    skip = body.skip_special_tokens is not False
    return serving.client.tokenizer.decode(prompt, skip_special_tokens=skip)
