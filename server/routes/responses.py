"""POST /v1/responses"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation
from server.answer import answer
from server.body import JsonRoute
from server.chat_plan import plan_chat
from server.context import record_of
from server.openapi import answered_by
from server.responses.chat import NAMES, as_chat
from server.responses.reply import FRAMING, ResponsesReply
from server.schemas.responses import ResponsesRequest
from server.schemas.translated_answers import ResponseAnswer
from server.serving import ServingDep
from server.translation import worded
from server.warnings import note_ignored

router = APIRouter(tags=["responses"], route_class=JsonRoute)

EVENT = {
    "type": "response.output_text.delta",
    "sequence_number": 4,
    "output_index": 0,
    "item_id": "msg_1",
    "content_index": 0,
    "delta": "Sure",
    "logprobs": [],
}


@router.post("/v1/responses", responses=answered_by(ResponseAnswer, EVENT, FRAMING))
async def create_response(
    body: ResponsesRequest, request: Request, serving: ServingDep
) -> Response:
    """Answer a conversation of items, whole or as a stream of typed events."""
    serving.check_ready(1)
    note_ignored(request, body)
    with worded(NAMES):
        chat = as_chat(body)
        job = await plan_chat(chat, serving, "resp_")
        tally = generation.Tally(job, record_of(request))
        (choice,) = serving.formats.choices(chat, job.requests)
        reply = ResponsesReply(body, chat, job, tally, choice)
        outputs = generation.run(serving, job, tally)
        return await answer(request, reply, outputs, bool(body.stream), FRAMING)
