"""What routers ask of a server behind them; SGLang's names."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class ModelFacts(BaseModel):
    """model_path: the name it is served under. Its folder is nobody's business."""

    model_path: str
    served_model_name: str
    is_generation: Literal[True] = True
    architectures: list[str]


class ServerFacts(BaseModel):
    """context_length: tokens of prompt and answer together. max_running_requests: sequences in one
    forward. tp_size: ranks that share the model. max_total_num_tokens: room of the KV cache.
    page_size: tokens of one of its blocks.
    """

    model_path: str
    served_model_name: str
    version: str
    context_length: int
    max_running_requests: int
    max_total_num_tokens: int
    page_size: int
    dtype: str
    device: str
    tp_size: int
    dp_size: Literal[1] = 1


class Generated(BaseModel):
    """That a token was generated, and how long it took."""

    status: Literal["ok"] = "ok"
    seconds: float
