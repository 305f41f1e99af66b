"""An output of the engine with its text."""

from __future__ import annotations

from engine.request import FinishReason, RequestOutput
from engine.text.stream import TextStream


def add_text(output: RequestOutput, stream: TextStream, include_stop: bool) -> None:
    """Fill in the text; where a stop string ends it, cut the output to the same token."""
    tokens = output.token_ids
    if output.finish_reason is FinishReason.STOP and not include_stop:
        tokens = tokens[:-1]  # the token that ended it has no text
    delta = stream.push(tokens, finished=output.finish_reason is not None)
    output.text = delta.text
    if delta.stop is None:
        return
    surplus = len(output.token_ids) - delta.num_tokens
    output.speculation.retract(len(output.token_ids) - 1, surplus)
    output.num_generated_tokens -= surplus
    output.token_ids = output.token_ids[: delta.num_tokens]
    if output.logprobs is not None:
        output.logprobs = output.logprobs[: delta.num_tokens]
    if output.sources is not None:
        output.sources = output.sources[: delta.num_tokens]
    output.finish_reason = FinishReason.STOP
    output.stop_reason = delta.stop
