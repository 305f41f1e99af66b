"""What chat complains of is named as the other API names it."""

from __future__ import annotations

import pytest

from server.anthropic.chat import NAMES as MESSAGES
from server.errors import ApiError, invalid
from server.responses.chat import NAMES as RESPONSES
from server.translation import worded


@pytest.mark.parametrize(
    ("names", "chats", "own"),
    [
        (RESPONSES, "messages.2.content", "input"),
        (RESPONSES, "max_completion_tokens", "max_output_tokens"),
        (RESPONSES, "response_format", "text.format"),
        (RESPONSES, "response_format.json_schema.schema", "text.format.schema"),
        (RESPONSES, "tools.0.function.parameters", "tools.0.parameters"),
        (RESPONSES, "tool_choice.function.name", "tool_choice.name"),
        (RESPONSES, "temperature", "temperature"),
        (MESSAGES, "messages.2.content", "messages"),
        (MESSAGES, "stop", "stop_sequences"),
        (MESSAGES, "tools.0.function.parameters", "tools.0.input_schema"),
    ],
)
def test_fields_have_the_adapters_names(names: dict[str, str], chats: str, own: str) -> None:
    with pytest.raises(ApiError) as raised, worded(names):
        raise invalid(f"Invalid '{chats}'.", chats)
    assert (raised.value.param, raised.value.message) == (own, f"Invalid '{own}'.")


def test_what_names_no_field_stays_as_it_is() -> None:
    with pytest.raises(ApiError) as raised, worded(RESPONSES):
        raise invalid("It is broken.", None)
    assert (raised.value.param, raised.value.message) == (None, "It is broken.")
