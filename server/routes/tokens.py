"""POST /tokenize and POST /detokenize"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from server import prompts
from server.body import JsonRoute
from server.schemas.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from server.serving import Serving, ServingDep
from server.warnings import note_ignored

router = APIRouter(tags=["tokens"], route_class=JsonRoute)


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request, serving: ServingDep) -> Tokenized:
    """Token ids of a text, or of a conversation as the model reads it."""
    note_ignored(request, body)
    _check_model(body.model, serving)
    tokenizer = serving.client.tokenizer
    if body.messages is not None:
        special = bool(body.add_special_tokens)
        token_ids = await prompts.of_conversation(serving, body, body.tool_dicts, special)
    else:
        special = body.add_special_tokens is not False
        token_ids = await prompts.encode(tokenizer, body.prompt or "", special, "prompt")
    return Tokenized(
        count=len(token_ids),
        max_model_len=serving.client.info.max_model_len,
        tokens=token_ids,
        token_strs=[tokenizer.id_to_token(token_id) or "" for token_id in token_ids]
        if body.return_token_strs
        else None,
    )


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request, serving: ServingDep) -> Detokenized:
    """The text of token ids."""
    note_ignored(request, body)
    _check_model(body.model, serving)
    prompts.check_token_ids(body.tokens, serving.client.info.vocab_size, "tokens")
    text = await asyncio.to_thread(
        serving.client.tokenizer.decode, body.tokens, skip_special_tokens=False
    )
    return Detokenized(prompt=text)


def _check_model(model: str | None, serving: Serving) -> None:
    serving.check_ready()
    if model is not None:
        serving.adapter_for(model)
