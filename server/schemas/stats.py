"""GET /v1/stats: what is answered."""

from __future__ import annotations

from pydantic import BaseModel


class Stats(BaseModel):
    """Gauges, and totals whose differences between two answers are rates.

    now: seconds since the epoch. num_running, num_waiting: requests. kv_cache_usage: 0 to 1.
    generation_tokens, first_tokens, first_token_seconds: since the server started; how many
    requests got a first token, and how long they waited for it together.
    decoding_forwards, decoded_tokens: since the engine started; forwards of a sequence, and tokens
    they emitted, the bonus token included.
    """

    now: float
    num_running: int
    num_waiting: int
    kv_cache_usage: float
    generation_tokens: int
    first_tokens: int
    first_token_seconds: float
    decoding_forwards: int
    decoded_tokens: int
