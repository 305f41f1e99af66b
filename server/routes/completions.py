"""POST /v1/completions"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation, prompts
from server.answer import answer
from server.completion_reply import CompletionReply
from server.context import record_of
from server.schemas.completions import CompletionRequest
from server.serving import Serving, ServingDep

router = APIRouter(tags=["completions"])


@router.post("/v1/completions")
async def create_completion(
    body: CompletionRequest, request: Request, serving: ServingDep
) -> Response:
    """Continue one prompt or several, whole or as a stream of server-sent events."""
    serving.check_ready()
    serving.adapter_for(body.model)
    job = generation.plan(
        serving,
        body,
        [await _token_ids(prompt, serving) for prompt in body.prompts],
        prefix="cmpl",
        max_tokens=body.token_limit,
        logprobs=body.logprobs,
        grammar=body.grammar,
    )
    tally = generation.Tally(job, record_of(request))
    reply = CompletionReply(body, job, tally, serving.token_texts)
    return await answer(
        request, reply, generation.run(serving, job, tally), stream=bool(body.stream)
    )


async def _token_ids(prompt: str | list[int], serving: Serving) -> list[int]:
    if isinstance(prompt, str):
        token_ids = await prompts.encode(serving.client.tokenizer, prompt, True, "prompt")
        if serving.template is None:  # with one, tuning would take it for what a user says
            serving.prompt_log.add({"prompt": prompt})
        return token_ids
    prompts.check_token_ids(prompt, serving.client.info.vocab_size, "prompt")
    return prompt
