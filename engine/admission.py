"""Whether a request can be served at all."""

from __future__ import annotations

from engine.errors import ContextLengthExceeded, RequestError
from engine.request import Request


def token_limit(request: Request, max_model_len: int, vocabulary: int) -> int:
    """Tokens the request may generate.

    Raises RequestError where it has token ids the model does not have, ContextLengthExceeded where
    prompt and completion do not fit.
    """
    prompt, params = len(request.token_ids), request.sampling
    if prompt == 0:
        raise RequestError("the prompt has no tokens", "prompt")
    if not all(0 <= t < vocabulary for t in request.token_ids):
        raise RequestError(f"prompt token ids must be below {vocabulary}", "prompt")
    if (
        request.prediction
        and not 0 <= min(request.prediction) <= max(request.prediction) < vocabulary
    ):
        raise RequestError(f"prediction token ids must be below {vocabulary}", "prediction")
    if not all(0 <= t < vocabulary for t in params.logit_bias):
        raise RequestError(f"logit_bias token ids must be below {vocabulary}", "logit_bias")
    room = max_model_len - prompt
    asked = params.max_tokens
    if room < (1 if asked is None else asked):
        raise ContextLengthExceeded(
            f"This model's maximum context length is {max_model_len} tokens. However, "
            f"you requested {prompt + (asked or 0)} tokens ({prompt} in the prompt, "
            f"{asked or 0} in the completion). Please reduce the length of either.",
            "prompt",
        )
    return room if asked is None else asked
