"""POST /v1/messages, POST /v1/messages/count_tokens"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation
from server.answer import answer
from server.anthropic.chat import NAMES, as_chat, as_prompt
from server.anthropic.reply import FRAMING, MessagesReply
from server.body import JsonRoute
from server.chat_plan import plan_chat, prompt_of
from server.context import record_of
from server.openapi import ANTHROPIC_ERRORS, answered_by
from server.schemas.messages import CountTokensRequest, MessagesRequest
from server.schemas.translated_answers import MessageAnswer, TokenCount
from server.serving import ServingDep
from server.translation import worded
from server.warnings import note_ignored
from server.wire import json_response

router = APIRouter(tags=["messages"], route_class=JsonRoute, responses=ANTHROPIC_ERRORS)

EVENT = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "text_delta", "text": "Sure"},
}


@router.post("/v1/messages", responses=answered_by(MessageAnswer, EVENT, FRAMING))
async def create_message(body: MessagesRequest, request: Request, serving: ServingDep) -> Response:
    """Answer a conversation in Anthropic's form, whole or as a stream of events."""
    serving.check_ready(1)
    note_ignored(request, body)
    with worded(NAMES):
        chat = as_chat(body)
        job = await plan_chat(chat, serving, "msg_")
        tally = generation.Tally(job, record_of(request))
        (choice,) = serving.formats.choices(chat, job.requests)
        reply = MessagesReply(job, tally, choice)
        outputs = generation.run(serving, job, tally)
        return await answer(request, reply, outputs, bool(body.stream), FRAMING)


@router.post("/v1/messages/count_tokens", responses={200: {"model": TokenCount}})
async def count_tokens(body: CountTokensRequest, request: Request, serving: ServingDep) -> Response:
    """Tokens of a conversation's prompt."""
    serving.check_ready()
    note_ignored(request, body)
    with worded(NAMES):
        chat = as_prompt(body)
        serving.adapter_for(chat.model)
        return json_response({"input_tokens": len(await prompt_of(chat, serving))})
