"""A responses request as a chat request."""

from __future__ import annotations

from typing import Any

from server.errors import invalid
from server.schemas.chat import ChatCompletionRequest
from server.schemas.response_items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    MessageItem,
    ReasoningItem,
    Text,
)
from server.schemas.responses import FunctionTool, NamedFunction, ResponsesRequest, TextFormat
from server.translation import chat_request

_SAME = (
    *("model", "stream", "temperature", "top_p", "parallel_tool_calls", "metadata", "user"),
    *("safety_identifier", "prompt_cache_key", "seed", "stop", "top_k", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"),
    *("min_tokens", "ignore_eos", "stop_token_ids"),
)
NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
"""Chat's fields -> where they come from."""


def as_chat(body: ResponsesRequest) -> ChatCompletionRequest:
    """The conversation that `body` asks for. Raises the 400 of what chat refuses."""
    if body.top_logprobs is not None and not body.includes_logprobs:
        message = "'top_logprobs' is only allowed with 'include': message.output_text.logprobs."
        raise invalid(message, "top_logprobs")
    text, reasoning = body.text, body.reasoning
    return chat_request(
        {
            **{name: getattr(body, name) for name in _SAME},
            "messages": _messages(body),
            "max_completion_tokens": body.max_output_tokens,
            "logprobs": body.includes_logprobs or None,
            "top_logprobs": body.top_logprobs,
            "tools": [_tool(tool) for tool in body.tools] if body.tools else None,
            "tool_choice": _tool_choice(body),
            "response_format": _response_format(text.format) if text and text.format else None,
            "verbosity": text.verbosity if text else None,
            "reasoning_effort": reasoning.effort if reasoning else None,
            "speculation": body.speculation.model_dump() if body.speculation else None,
        }
    )


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    """The turns; what one answer consisted of becomes one message again."""
    messages: list[dict[str, Any]] = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for item in body.input:
        match item:
            case MessageItem(role="assistant"):
                answer = _answer(messages, "content", "tool_calls")
                answer["content"] = _text(item.content)
            case MessageItem():
                messages.append({"role": item.role, "content": _text(item.content)})
            case FunctionCallItem():
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                _answer(messages).setdefault("tool_calls", []).append(call)
            case FunctionCallOutputItem():
                output = {"content": _text(item.output), "tool_call_id": item.call_id}
                messages.append({"role": "tool", **output})
            case ReasoningItem(content=parts) if parts:
                answer = _answer(messages, "reasoning_content", "content", "tool_calls")
                answer["reasoning_content"] = "".join(part.text for part in parts)
    return messages


def _answer(messages: list[dict[str, Any]], *closed_by: str) -> dict[str, Any]:
    """The last message, if it is an answer that has none of these yet, or a fresh one."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or any(name in last for name in closed_by):
        last = {"role": "assistant"}
        messages.append(last)
    return last


def _text(content: Text) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part.text} for part in content]


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _tool_choice(body: ResponsesRequest) -> Any:
    if isinstance(body.tool_choice, NamedFunction):
        return {"type": "function", "function": {"name": body.tool_choice.name}}
    # OpenAI's own client says "auto" without any tools.
    return body.tool_choice if body.tools or body.tool_choice != "auto" else None


def _response_format(given: TextFormat) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    schema = given.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    return {"type": "json_schema", "json_schema": schema}
