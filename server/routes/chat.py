"""POST /v1/chat/completions"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import generation, prompts
from server.answer import answer
from server.chat_reply import ChatReply
from server.context import record_of
from server.errors import invalid
from server.generation import Job
from server.schemas.chat import ChatCompletionRequest
from server.serving import Serving, ServingDep

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions")
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, serving: ServingDep
) -> Response:
    """Answer a conversation, whole or as a stream of server-sent events."""
    serving.check_ready()
    job = await plan_chat(body, serving, "chatcmpl-")
    tally = generation.Tally(job, record_of(request))
    reply = ChatReply(body, job, tally, serving.formats.choices(body, job.requests))
    return await answer(
        request, reply, generation.run(serving, job, tally), stream=bool(body.stream)
    )


async def plan_chat(body: ChatCompletionRequest, serving: Serving, prefix: str) -> Job:
    """What is generated for a conversation, whichever endpoint it came by.

    Raises the 404 of its model, or the 400 of a prompt that cannot be made.
    """
    serving.adapter_for(body.model)
    prompt = await prompt_of(body, serving)
    serving.prompt_log.add({"messages": _messages(body), "tools": _tools(body)})
    return generation.plan(
        serving,
        body,
        [prompt],
        prefix=prefix,
        max_tokens=body.token_limit,
        logprobs=body.num_logprobs,
        prediction=await _prediction(body, serving),
        kept_tokens=serving.formats.kept_tokens(body.uses_tools),
    )


async def prompt_of(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    """Token ids of a conversation. Raises the 400 of one the model's template refuses."""
    if serving.template is None:
        raise invalid("This model has no chat template.", "messages", "no_chat_template")
    if body.uses_tools and not serving.template.takes_tools:
        raise invalid(
            "This model's chat template does not show it any tools.",
            "tools",
            "unsupported_parameter",
        )
    text = serving.template.render(_messages(body), _tools(body))
    return await prompts.encode(serving.client.tokenizer, text, False, "messages")


def _messages(body: ChatCompletionRequest) -> list[dict[str, Any]]:
    return [message.model_dump(exclude_none=True) for message in body.messages]


def _tools(body: ChatCompletionRequest) -> list[dict[str, Any]] | None:
    given = [tool.model_dump(exclude_none=True) for tool in body.tools or []]
    return given if body.uses_tools else None


async def _prediction(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    if body.prediction is None or not body.prediction.text:
        return []
    return await prompts.encode(
        serving.client.tokenizer, body.prediction.text, False, "prediction.content"
    )
