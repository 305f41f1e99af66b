"""Prompts to token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer

from server.errors import invalid
from server.schemas.conversation import Conversation
from server.serving import Serving

LONG_TEXT = 4096


async def encode(tokenizer: Tokenizer, text: str, special_tokens: bool, param: str) -> list[int]:
    """Token ids of `text`; a text of many characters is encoded off the event loop.

    special_tokens: whether the tokenizer adds its own (a chat template has written them already).
    Raises the 400, naming `param`, of a text that cannot be encoded or that is empty.
    """

    def run() -> list[int]:
        # `encode` would also compute where in the text each token is.
        (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=special_tokens)
        token_ids: list[int] = encoding.ids
        return token_ids

    return await _encoded(run, text, param)


async def _encoded(run: Callable[[], list[int]], text: str, param: str) -> list[int]:
    try:
        token_ids = await asyncio.to_thread(run) if len(text) > LONG_TEXT else run()
    except (UnicodeError, TypeError) as error:
        # Half of a surrogate pair is a valid JSON string, and no text.
        raise invalid(f"'{param}' is not valid Unicode text.", param) from error
    if not token_ids:
        raise invalid(f"'{param}' has no tokens.", param)
    return token_ids


def check_token_ids(token_ids: list[int], vocab_size: int, param: str) -> None:
    """Raises the 400, naming `param`, of an id the model does not have."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise invalid(
                f"{token_id} in '{param}' is no token id: the model's are below {vocab_size}.",
                param,
            )


async def of_conversation(
    serving: Serving,
    body: Conversation,
    tools: list[dict[str, Any]] | None,
    special_tokens: bool = False,
    salt: str = "",
    **variables: Any,
) -> list[int]:
    """Token ids of a conversation, by the model's chat template.

    tools: those the model is shown. special_tokens: as in `encode`. salt: as in
    `PromptEncoder.encode`. variables: given to the template beside the request's
    `chat_template_kwargs`, each a field of the request; None is not given.
    Raises the 400 of a model without a template, of messages or fields that its template refuses.
    """
    template = serving.template
    if template is None:
        raise invalid("This model has no chat template.", "messages", "no_chat_template")
    given = {name: value for name, value in variables.items() if value is not None}
    for name in given.keys() - template.variables:
        raise invalid(
            f"Unsupported parameter: '{name}'. The model's chat template does not read it.",
            name,
            "unsupported_parameter",
        )
    text = template.render(
        body.message_dicts,
        tools,
        body.begins_answer,
        bool(body.continue_final_message),
        {**(body.chat_template_kwargs or {}), **given},
    )
    if special_tokens:
        return await encode(serving.client.tokenizer, text, special_tokens, "messages")
    return await _encoded(lambda: serving.prompt_encoder.encode(text, salt), text, "messages")
