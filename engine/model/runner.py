"""Rows in, hidden states and logits out: the only caller of the model's forward."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adapters.projection import LogitRule
from adapters.successor import Successor
from engine.attention.interface import Backend, attention_step
from engine.attention.mask_route import MaskedStepCache
from engine.attention.sdpa import SdpaStep
from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage
from engine.model.linears import selected
from engine.speculation.bita import DraftHead, Guide, Head, Layer

TABLE_ROWS = 8_192
"""Tokens that are read at once for a table of the whole vocabulary."""


class Route(StrEnum):
    """How our attention reaches the model."""

    INTERFACE = "interface"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """logits: float32 `[logit rows, vocab]`. hidden: `[rows, hidden]`, after the final norm.

    finite: whether all of `hidden` is; None where nobody has looked.
    """

    logits: Tensor
    hidden: Tensor
    finite: bool | None = None


class ModelRunner:
    """A frozen model, its KV storage and the adapters' mask embeddings.

    kv_heads: the model's KV heads whose keys and values are stored here; None for all.
    fixed_rows: rows of every forward, the missing ones padded, and logits of all of them; 0
    computes what is asked. A matrix product of another shape may round otherwise.
    """

    def __init__(
        self,
        model: Any,
        storage: KVStorage,
        route: Route,
        adapter_slots: int = 1,
        max_masks: int = 1,
        backend: Backend = SdpaStep,
        kv_heads: range | None = None,
        fixed_rows: int = 0,
    ) -> None:
        self.model, self.storage, self.route = model, storage, route
        self.backend, self.fixed_rows = backend, fixed_rows
        self.kv_heads = range(storage.keys.shape[2]) if kv_heads is None else kv_heads
        self.embedding: nn.Module = model.get_input_embeddings()
        self.head: nn.Module = model.get_output_embeddings()
        self.config = model.config.get_text_config()
        self.logit_rule = LogitRule.of(self.config)
        self.device = storage.keys.device
        self.max_masks = max_masks
        width = self.embedding(torch.zeros(1, dtype=torch.int64, device=self.device)).shape[-1]
        self.mask_embeddings = torch.zeros(
            adapter_slots * max_masks, width, dtype=storage.keys.dtype, device=self.device
        )
        self.num_prompts = [0] * adapter_slots
        self._hidden: Tensor | None = None
        # The model outlives its runners, and must not keep their KV alive.
        keep = weakref.WeakMethod(self._keep_hidden)

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if method := keep():
                method(module, inputs, output)

        weakref.finalize(self, trunk_of(model).register_forward_hook(hook).remove)

    def set_adapter(self, slot: int, prompt_kv: Tensor, mask_embeddings: Tensor) -> None:
        """Put an adapter into a slot.

        prompt_kv `[layers, 2, kv_heads, prompts, head_dim]` of all the model's KV heads,
        mask_embeddings `[masks, hidden]`.
        """
        self.storage.set_prompts(slot, prompt_kv[:, :, self.kv_heads.start : self.kv_heads.stop])
        self.num_prompts[slot] = prompt_kv.shape[3]
        first = slot * self.max_masks
        self.mask_embeddings[first : first + len(mask_embeddings)] = mask_embeddings

    def prepare(self, longest: int) -> None:
        """Do now what would hold up the first steps. longest: tokens a sequence may have."""

    @torch.inference_mode()
    def execute(self, batch: ForwardBatch) -> ModelOutput:
        """Run the rows; their fresh K/V are left in the step buffer, in row order.

        What is returned may be overwritten by the next call.
        """
        embeds = self.embedding(self._rows(batch.token_ids))
        if len(batch.mask_rows):
            masks = self.mask_embeddings.index_select(0, self._tensor(batch.mask_slots))
            embeds.index_copy_(0, self._tensor(batch.mask_rows), masks)
        arguments: dict[str, Any] = {
            "inputs_embeds": embeds[None],
            "position_ids": self._rows(batch.positions)[None],
            "use_cache": False,
            "logits_to_keep": 0 if self._wants_all(batch) else self._tensor(batch.logit_rows),
        }
        if self.route is Route.MASK:
            cache = MaskedStepCache(batch, self.storage, self.num_prompts)
            arguments |= {"past_key_values": cache, "attention_mask": cache.mask}
            arguments["use_cache"] = True
            output = self.model(**arguments)
        else:
            step = self.backend(batch, self.storage, self.num_prompts)
            with attention_step(step):
                output = self.model(**arguments)
        hidden, logits = self.take_hidden(), output.logits[0]
        if self.fixed_rows:
            logits = logits.index_select(0, self._tensor(batch.logit_rows))
        return ModelOutput(logits.float(), hidden)

    def commit(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy K/V from slots of the step buffer to slots of the cache."""
        self.storage.commit(source, target)

    def clean_step_buffer(self) -> None:
        """As `KVStorage.clean_step_buffer`."""
        self.storage.clean_step_buffer()

    @torch.inference_mode()
    def embed(self, token_ids: Tensor) -> Tensor:
        """Embeddings of int64 `[tokens]` as the model's layers take them, `[tokens, hidden]`."""
        embeddings: Tensor = self.embedding(token_ids)
        return embeddings

    @torch.inference_mode()
    def project(self, hidden: Tensor) -> Tensor:
        """Logits of mask rows, float32 `[rows, vocab]`."""
        return self.logit_rule(self.head(hidden))

    @torch.inference_mode()
    def draft_head(self, tokens: Tensor | None, successor: Successor | None) -> Head:
        """What ranks drafts among `tokens`, int64 `[n]`; among all for None.

        successor: the adapter's, None where it has none.
        """
        guide = None
        if successor is not None:
            successor = successor.to(self.device)
            guide = Guide(successor, self.token_reader(successor))
        if tokens is None:
            return DraftHead(self.project, None, guide)
        tokens = tokens.to(self.device)
        head = self.head_of(tokens)
        return DraftHead(lambda hidden: self.logit_rule(head(hidden)), tokens, guide)

    def head_of(self, tokens: Tensor) -> nn.Linear:
        """The part of the model's head that gives the logits of tokens, int64 `[n]`."""
        width, dtype = self.mask_embeddings.shape[1], self.mask_embeddings.dtype
        return selected(self.head, tokens, width, dtype)

    def token_reader(self, successor: Successor) -> Layer:
        """As `successor.read_token`, of token ids."""
        table = self.token_table(successor)
        return lambda tokens: table.index_select(0, tokens)

    def token_table(self, successor: Successor) -> Tensor:
        """What a successor head reads of every token, `[vocab, rank]` of the model's dtype."""
        ids = torch.arange(self.config.vocab_size, device=self.device)
        parts = [successor.read_token(self.embed(part)) for part in ids.split(TABLE_ROWS)]
        return torch.cat(parts).to(self.mask_embeddings.dtype)

    def score(self, hidden: Tensor) -> Tensor:
        """Logits that are told to a client, as `project`; in products of `fixed_rows`."""
        missing = max(0, self.fixed_rows - len(hidden))
        return self.project(functional.pad(hidden, (0, 0, 0, missing)))[: len(hidden)]

    def take_hidden(self) -> Tensor:
        """Hidden states of the model's last forward, after the final norm."""
        assert self._hidden is not None
        hidden, self._hidden = self._hidden, None
        return hidden

    def _keep_hidden(self, _: nn.Module, __: Any, output: Any) -> None:
        self._hidden = output[0][0]

    def _wants_all(self, batch: ForwardBatch) -> bool:
        """Whether all rows' logits are computed."""
        return self.fixed_rows > 0 or len(batch.logit_rows) == batch.num_rows

    def _rows(self, array: NDArray[np.int64]) -> Tensor:
        """A number a row, and zeros for those that are missing."""
        missing = self.fixed_rows - len(array)
        return self._tensor(np.pad(array, (0, missing)) if missing > 0 else array)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def trunk_of(model: Any) -> nn.Module:
    """The model without its head.

    Heads call their trunk by different names; Llama 4's says it is its own base model.
    """
    names = (model.get_decoder(), model.base_model, getattr(model, "model", None))
    trunk: nn.Module = next(module for module in names if module not in (None, model))
    return trunk
