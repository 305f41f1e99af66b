"""POST /v1/chat/completions"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation
from server.answer import answer
from server.body import JsonRoute
from server.chat_plan import plan_chat
from server.chat_reply import ChatReply
from server.context import record_of
from server.openapi import answered_by
from server.schemas.answers import ChatCompletion
from server.schemas.chat import ChatCompletionRequest
from server.serving import ServingDep
from server.warnings import note_ignored

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
    serving.check_ready(body.num_choices)
    note_ignored(request, body)
    job = await plan_chat(body, serving, "chatcmpl-")
    tally = generation.Tally(job, record_of(request))
    choices = serving.formats.choices(body, job.requests)
    reply = ChatReply(body, job, tally, choices, serving.token_texts)
    return await answer(
        request, reply, generation.run(serving, job, tally), stream=bool(body.stream)
    )
