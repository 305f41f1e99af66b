"""POST /v1/chat/completions"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation, prompts
from server.answer import answer
from server.chat_reply import ChatReply
from server.context import record_of
from server.errors import invalid
from server.schemas.chat import ChatCompletionRequest
from server.serving import Serving, ServingDep
from server.tool_calls.grammar import tool_grammar

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions")
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, serving: ServingDep
) -> Response:
    """Answer a conversation, whole or as a stream of server-sent events."""
    serving.check_ready()
    serving.adapter_for(body.model)
    job = generation.plan(
        serving,
        body,
        [await _prompt(body, serving)],
        prefix="chatcmpl",
        max_tokens=body.token_limit,
        logprobs=body.num_logprobs,
        prediction=await _prediction(body, serving),
        grammar=tool_grammar(body) or body.grammar,
    )
    tally = generation.Tally(job, record_of(request))
    reply = ChatReply(body, job, tally, serving.token_texts)
    return await answer(
        request, reply, generation.run(serving, job, tally), stream=bool(body.stream)
    )


async def _prompt(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    if serving.template is None:
        raise invalid("This model has no chat template.", "messages", "no_chat_template")
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    given = [tool.model_dump(exclude_none=True) for tool in body.tools or []]
    tools = given if body.uses_tools else None
    text = serving.template.render(messages, tools)
    token_ids = await prompts.encode(serving.client.tokenizer, text, False, "messages")
    serving.prompt_log.add({"messages": messages, "tools": tools})
    return token_ids


async def _prediction(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    if body.prediction is None or not body.prediction.text:
        return []
    return await prompts.encode(
        serving.client.tokenizer, body.prediction.text, False, "prediction.content"
    )
