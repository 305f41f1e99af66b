"""A model built like Llama through our own kernels: one call for all layers of a step."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_int64, pointer
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters.projection import LogitRule
from adapters.successor import Successor
from engine.attention.interface import layer_scope
from engine.attention.segments import segment_facts, visibility_words
from engine.batch import ForwardBatch
from engine.cache.storage import indices
from engine.kernels.cpu.drafts import PackedDraftHead
from engine.kernels.cpu.library import Layer, Linear, Step, Trunk, required
from engine.kernels.cpu.memory import WORD, Workspace
from engine.model.linears import NativeLinear
from engine.model.loaded import LoadedModel
from engine.model.native_drafts import NativeDraftHead
from engine.model.runner import ModelOutput, ModelRunner, Route, trunk_of
from engine.speculation.bita import Head

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Layers of these have the parts that trunk.cpp computes, and no others."""
ROPES = ("default", "linear", "llama3", "yarn")
"""Whose angles follow from the position alone."""
LANES = 16
"""Of the widest vectors: heads and hidden states must be whole ones."""
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def is_native(loaded: LoadedModel) -> bool:
    """Whether our kernels compute this model: its family, its sizes and its packed layers."""
    config, facts = loaded.model.config, loaded.facts
    rope = getattr(config, "rope_parameters", None) or {}
    trunk: Any = trunk_of(loaded.model)
    return (
        loaded.route is Route.INTERFACE
        and loaded.ranks == 1
        and config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and rope.get("rope_type") in ROPES
        and type(loaded.model.get_input_embeddings()) is nn.Embedding
        and 2 * len(trunk.rotary_emb.inv_freq) == facts.head_dim
        and facts.hidden_size % LANES == 0
        and facts.head_dim % LANES == 0
        and all(
            type(layer.get_submodule(name)) is NativeLinear
            for layer in trunk.layers
            for name in (*PROJECTIONS, *MLP)
        )
    )


class NativeRunner(ModelRunner):
    """A runner of a model that `is_native`.

    A row is computed by itself, in the same order whatever runs beside it and wherever its columns
    lie: its logits are the same, to the bit, with and without drafts, alone and beside others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kernels, self._half = required(), self.storage.keys.dtype is torch.bfloat16
        trunk: Any = trunk_of(self.model)
        self._norms: list[Tensor] = []
        layers = [self._layer(i, layer) for i, layer in enumerate(trunk.layers)]
        self._layers = (Layer * len(layers))(*layers)
        table: Any = self.embedding
        keys = self.storage.keys
        self._trunk = Trunk(
            num_layers=len(layers),
            hidden=self.mask_embeddings.shape[1],
            heads=self.config.num_attention_heads,
            kv_heads=keys.shape[2],
            head_dim=keys.shape[3],
            block_size=self.storage.block_size,
            num_slots=keys.shape[1],
            epsilon=trunk.norm.variance_epsilon,
            scaling=trunk.layers[0].self_attn.scaling,
            layers=self._layers,
            final_norm=self._norm(trunk.norm),
            embeddings=table.weight.data_ptr(),
            masks=self.mask_embeddings.data_ptr(),
            keys=keys.data_ptr(),
            values=self.storage.values.data_ptr(),
        )
        self._trunk_reference = byref(self._trunk)
        self._rotary: Any = trunk.rotary_emb
        self._cosines = self._sines = torch.empty(0)
        self._workspace = Workspace()

    def execute(self, batch: ForwardBatch) -> ModelOutput:
        """As `ModelRunner.execute`."""
        words = visibility_words(batch)
        tables = {
            "token_ids": batch.token_ids,
            "mask_rows": batch.mask_rows,
            "mask_slots": batch.mask_slots,
            "positions": batch.positions,
            "slots": batch.scratch_slots,
            "blocks": np.array([b for s in batch.segments for b in s.blocks], np.int64),
            "segments": np.array(self._facts(batch), np.int64).ravel(),
            "words": words.ravel(),
        }
        sent = np.concatenate(list(tables.values()))
        starts = accumulate((len(table) * WORD for table in tables.values()), initial=0)
        address, finite = sent.ctypes.data, c_int64(1)
        self._turn_to(int(batch.positions.max()))
        hidden = self.mask_embeddings.new_empty(batch.num_rows, self._trunk.hidden)
        step = Step(
            rows=batch.num_rows,
            num_masks=len(batch.mask_rows),
            num_segments=len(batch.segments),
            pieces=words.shape[1],
            columns=max(s.num_past + s.num_rows for s in batch.segments) + max(self.num_prompts),
            threads=torch.get_num_threads(),
            hidden=hidden.data_ptr(),
            finite=pointer(finite),
            cosines=self._cosines.data_ptr(),
            sines=self._sines.data_ptr(),
            **{name: address + start for name, start in zip(tables, starts, strict=False)},
        )
        size = self._kernels.bita_workspace_bytes(self._half, self._trunk_reference, byref(step))
        step.workspace = self._workspace.of(size)
        self._kernels.bita_forward(self._half, self._trunk_reference, byref(step))
        # A single sequence's rows lie together, and are not copied.
        logits = self.project(hidden[indices(batch.logit_rows, self.device)])
        return ModelOutput(logits, hidden, bool(finite.value))

    def commit(self, source: Sequence[int], target: Sequence[int]) -> None:
        """As `ModelRunner.commit`."""
        count = len(source)
        slots = np.array([*source, *target], np.int64)
        data = slots.ctypes.data
        self._kernels.bita_commit(
            self._half, self._trunk_reference, count, data, data + count * WORD
        )

    def project(self, hidden: Tensor) -> Tensor:
        """As `ModelRunner.project`, of sums that were never rounded to 16 bit."""
        if type(self.head) is not NativeLinear:
            return super().project(hidden)
        return self.logit_rule(self.head.packed.multiply(hidden, wide=True))

    @torch.inference_mode()
    def draft_head(self, tokens: Tensor | None, successor: Successor | None) -> Head:
        """As `ModelRunner.draft_head`."""
        head = self.head if tokens is None else self.head_of(tokens)
        if type(head) is not NativeLinear or self.logit_rule != LogitRule(None, None, None):
            return super().draft_head(tokens, successor)
        table = None if successor is None else self.token_table(successor)
        outputs = torch.arange(head.out_features) if tokens is None else tokens.long().contiguous()
        packed = PackedDraftHead(head.packed, outputs, successor, table)
        return NativeDraftHead(packed, None if tokens is None else tokens.tolist())

    def _facts(self, batch: ForwardBatch) -> list[tuple[int, ...]]:
        facts, first_block = [], 0
        for segment in batch.segments:
            facts.append(segment_facts(segment, first_block, self.storage, self.num_prompts))
            first_block += len(segment.blocks)
        return facts

    def _turn_to(self, position: int) -> None:
        """Have the angles of positions up to this one, float32 `[positions, head_dim / 2]` each."""
        if position < len(self._cosines):
            return
        positions = torch.arange(2 * position + LANES)
        cosines, sines = self._rotary(torch.empty(0), positions[None])
        half = cosines.shape[-1] // 2
        self._cosines, self._sines = (x[0, :, :half].contiguous() for x in (cosines, sines))

    def _layer(self, index: int, layer: Any) -> Layer:
        attention = layer.self_attn
        scope = layer_scope(self.config, index, getattr(self.config, "sliding_window", None))
        linears = (self._linear(layer.get_submodule(name)) for name in (*PROJECTIONS, *MLP))
        query, key, value, output, gate, up, down = linears
        return Layer(
            input_norm=self._norm(layer.input_layernorm),
            query=query,
            key=key,
            value=value,
            query_norm=self._norm(getattr(attention, "q_norm", None)),
            key_norm=self._norm(getattr(attention, "k_norm", None)),
            output=output,
            mlp_norm=self._norm(layer.post_attention_layernorm),
            gate=gate,
            up=up,
            down=down,
            window=scope.window or 0,
        )

    def _linear(self, module: nn.Module) -> Linear:
        assert isinstance(module, NativeLinear)
        return module.packed.linear

    def _norm(self, module: Any) -> int | None:
        """Address of a norm's weight in float32, which is kept."""
        if module is None:
            return None
        self._norms.append(module.weight.float().contiguous())
        return self._norms[-1].data_ptr()
