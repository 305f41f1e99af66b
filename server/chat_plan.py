"""What is generated for a conversation, whichever endpoint it came by."""

from __future__ import annotations

from server import generation, prompts
from server.errors import invalid
from server.generation import Job
from server.schemas.chat import ChatCompletionRequest
from server.serving import Serving


async def plan_chat(body: ChatCompletionRequest, serving: Serving, prefix: str) -> Job:
    """The engine's requests; the answer's id begins with `prefix`.

    Raises the 404 of its model, or the 400 of a prompt that cannot be made or of calls that cannot
    be held to what is asked of them.
    """
    serving.adapter_for(body.model)
    prompt = await prompt_of(body, serving)
    if serving.prompt_log.keeps:
        serving.prompt_log.add({"messages": body.message_dicts, "tools": body.shown_tools})
    return generation.plan(
        serving,
        body,
        [prompt],
        prefix=prefix,
        prompt_field="messages",
        max_tokens=body.token_limit,
        logprobs=body.num_logprobs,
        prediction=await _prediction(body, serving),
        grammar=serving.formats.grammar(body),
        kept_tokens=serving.formats.kept_tokens(body.uses_tools),
    )


async def prompt_of(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    """Token ids of a conversation. Raises the 400 of one the model's template refuses."""
    if serving.template is not None and body.uses_tools and not serving.template.takes_tools:
        raise invalid(
            "This model's chat template does not show it any tools.",
            "tools",
            "unsupported_parameter",
        )
    return await prompts.of_conversation(
        serving,
        body,
        body.shown_tools,
        salt=body.cache_salt or "",
        reasoning_effort=body.reasoning_effort,
        verbosity=None if body.verbosity == "medium" else body.verbosity,
    )


async def _prediction(body: ChatCompletionRequest, serving: Serving) -> list[int]:
    if body.prediction is None or not body.prediction.text:
        return []
    return await prompts.encode(
        serving.client.tokenizer, body.prediction.text, False, "prediction.content"
    )
