"""POST /v1/chat/completions"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation, prompts
from server.answer import answer
from server.body import JsonRoute
from server.chat_reply import ChatReply
from server.context import record_of
from server.errors import invalid
from server.openapi import answered_by
from server.schemas.answers import ChatCompletion
from server.schemas.chat import ChatCompletionRequest
from server.serving import Serving, ServingDep
from server.warnings import note_unknown

router = APIRouter(tags=["chat"], route_class=JsonRoute)


CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "bita-concierge",
    "system_fingerprint": "fp_1",
    "choices": [
        {"index": 0, "delta": {"content": "Sure"}, "logprobs": None, "finish_reason": None}
    ],
}


@router.post("/v1/chat/completions", responses=answered_by(ChatCompletion, CHUNK))
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, serving: ServingDep
) -> Response:
    """Answer a conversation, whole or as a stream of server-sent events."""
    serving.check_ready()
    note_unknown(request, body)
    serving.adapter_for(body.model)
    formats = serving.formats
    job = generation.plan(
        serving,
        body,
        [await _prompt(body, serving)],
        prefix="chatcmpl",
        prompt_field="messages",
        max_tokens=body.token_limit,
        logprobs=body.num_logprobs,
        prediction=await _prediction(body, serving),
        grammar=formats.grammar(body),
        kept_tokens=formats.kept_tokens(body.uses_tools),
    )
    tally = generation.Tally(job, record_of(request))
    choices = formats.choices(body, job.requests)
    reply = ChatReply(body, job, tally, choices, serving.token_texts)
    return await answer(
        request, reply, generation.run(serving, job, tally), stream=bool(body.stream)
    )


async def _prompt(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    if serving.template is not None and body.uses_tools and not serving.template.takes_tools:
        raise invalid(
            "This model's chat template does not show it any tools.",
            "tools",
            "unsupported_parameter",
        )
    tools = body.tool_dicts if body.uses_tools else None
    token_ids = await prompts.of_conversation(
        serving,
        body,
        tools,
        reasoning_effort=body.reasoning_effort,
        verbosity=None if body.verbosity == "medium" else body.verbosity,
    )
    serving.prompt_log.add({"messages": body.message_dicts, "tools": tools})
    return token_ids


async def _prediction(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    if body.prediction is None or not body.prediction.text:
        return []
    return await prompts.encode(
        serving.client.tokenizer, body.prediction.text, False, "prediction.content"
    )
