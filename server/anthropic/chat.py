"""A messages request as a chat request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from server.errors import invalid
from server.schemas.chat import ChatCompletionRequest
from server.schemas.messages import (
    CountTokensRequest,
    MessagesRequest,
    TextBlock,
    Texts,
    ThinkingBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from server.translation import chat_request

NAMES = {
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "parameters": "input_schema",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
}
"""Chat's fields -> where they come from."""

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_ERROR = "Error: "


def as_chat(body: MessagesRequest) -> ChatCompletionRequest:
    """The conversation that `body` asks to be answered. Raises the 400 of what chat refuses."""
    return chat_request(
        {
            **_shown(body),
            "stream": body.stream,
            "max_tokens": body.max_tokens,
            "response_format": _response_format(body),
            "stop": body.stop_sequences,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "min_p": body.min_p,
            "seed": body.seed,
            "speculation": body.speculation.model_dump() if body.speculation else None,
        }
    )


def _response_format(body: MessagesRequest) -> dict[str, Any] | None:
    asked = body.output_config.format if body.output_config else None
    if asked is None:
        return None
    strict = {"name": "answer", "schema": asked.json_schema, "strict": True}
    return {"type": "json_schema", "json_schema": strict}


def as_prompt(body: CountTokensRequest) -> ChatCompletionRequest:
    """The conversation alone. Raises the 400 of what chat refuses."""
    return chat_request(_shown(body))


def _shown(body: CountTokensRequest) -> dict[str, Any]:
    """What the prompt is made of."""
    messages: list[dict[str, Any]] = []
    if body.system:
        messages.append({"role": "system", "content": _texts(body.system)})
    for turn in body.messages:
        messages += _messages(turn)
    if body.messages[-1].role == "assistant":
        raise invalid(
            "The last message must be the user's: the beginning of an answer cannot be given.",
            "messages",
            "unsupported_parameter",
        )
    choice = body.tool_choice
    return {
        "model": body.model,
        "messages": messages,
        "tools": [_tool(tool) for tool in body.tools] if body.tools else None,
        "tool_choice": _tool_choice(choice) if choice else None,
        "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
    }


def _messages(turn: Turn) -> Iterator[dict[str, Any]]:
    """One turn as chat's messages: results of calls are messages of their own there."""
    if isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
        return
    message: dict[str, Any] = {"role": turn.role}
    for block in turn.content:
        match block:
            case TextBlock():
                message.setdefault("content", []).append({"type": "text", "text": block.text})
            case ThinkingBlock():
                known = message.get("reasoning_content", "")
                message["reasoning_content"] = known + block.thinking
            case ToolUseBlock():
                function = {"name": block.name, "arguments": json.dumps(block.input)}
                call = {"id": block.id, "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(call)
            case ToolResultBlock():
                if turn.role != "user":
                    raise invalid("Only a user's message has results of calls.", "messages")
                if len(message) > 1:
                    yield message
                    message = {"role": turn.role}
                yield _result(block)
    if len(message) > 1:
        yield message


def _result(block: ToolResultBlock) -> dict[str, Any]:
    content = _texts(block.content or "")
    if block.is_error:
        error = {"type": "text", "text": _ERROR}
        content = _ERROR + content if isinstance(content, str) else [error, *content]
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _texts(texts: Texts) -> str | list[dict[str, Any]]:
    if isinstance(texts, str):
        return texts
    return [{"type": "text", "text": block.text} for block in texts] or ""


def _tool(tool: Tool) -> dict[str, Any]:
    own = tool.model_dump(include={"name", "description", "strict"}, exclude_none=True)
    return {"type": "function", "function": {**own, "parameters": tool.input_schema}}


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.type == "tool":
        if choice.name is None:
            raise invalid(
                "Missing required parameter: 'tool_choice.name'.",
                "tool_choice.name",
                "missing_required_parameter",
            )
        return {"type": "function", "function": {"name": choice.name}}
    return _CHOICES[choice.type]
