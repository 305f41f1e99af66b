"""Forwards of few rows as CUDA graphs: recorded once, then started in one call.

A forward of few rows is hundreds of short kernels, which a GPU ends sooner than Python can start
them. A recording holds a forward of a fixed size (`Room`) that reads all it has to know of a step
from tensors which stay where they are. A step is padded to the next size, its numbers are copied
there, and the recording is replayed. Larger steps, and prefill chunks, run as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.attention.interface import LayerCall, attention_step
from engine.attention.paged import attend_paged
from engine.attention.tables import LONGEST_TREE, DeviceTables, Room, StepTables
from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage
from engine.errors import EngineError
from engine.model.runner import ModelOutput, ModelRunner
from engine.model.trial import trial_batch

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXTS = (1 << 11, 1 << 13, 1 << 15, 1 << 17)
MAX_PARTIALS = 1 << 14
"""Of a recording: they are memory, and programs that find nothing to do."""
TOLERANCE = 0.05
"""Of a recording's logits, against the largest: padded products round otherwise in 16 bit."""

Outputs: TypeAlias = tuple[Tensor, Tensor]
Record: TypeAlias = Callable[[Callable[[], Outputs]], tuple[Outputs, Callable[[], object]]]
"""Records a call: its outputs, and what computes them again, in place."""

log = logging.getLogger("bita.engine")


class CudaGraphs:
    """The `Record` of CUDA; all recordings share what memory they need while they run."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], object]]:
        """Raises RuntimeError where the call waits for the device, which a graph cannot."""
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                call()  # Triton compiles, libraries find their workspaces
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Another thread may load an adapter meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = call()
        finally:
            torch.cuda.set_stream(current)  # a recording that fails leaves its own behind
        return outputs, graph.replay


class GraphedRunner(ModelRunner):
    """A runner over the Triton kernels whose small forwards are recorded.

    A model that cannot be recorded, or whose recording computes something else, is run as by
    `ModelRunner`, and the log says so.
    """

    make_record: Callable[[], Record] = CudaGraphs

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._record: Record | None = self.make_record()
        self._recordings: dict[Room, _Recording] = {}
        self._share = self.config.num_attention_heads // len(self.kv_heads)

    @property
    def num_recordings(self) -> int:
        """Sizes of steps that are recorded; 0 where the model cannot be."""
        return len(self._recordings)

    def prepare(self, longest: int) -> None:
        """Record every size of step, so that no request waits for it."""
        for context in CONTEXTS:
            past = max(0, min(context, longest - LONGEST_TREE))
            for rows in ROWS:
                length = min(rows, LONGEST_TREE)
                batch = trial_batch(self, past, [length] * (rows // length))
                if self._room(batch) is not None:
                    self.execute(batch)
            if context >= longest:
                return

    @torch.inference_mode()
    def execute(self, batch: ForwardBatch) -> ModelOutput:
        """As `ModelRunner.execute`."""
        room = self._room(batch)
        recording = self._recording(room, batch) if room is not None else None
        return super().execute(batch) if recording is None else recording.run(batch)

    def _room(self, batch: ForwardBatch) -> Room | None:
        """The recording for a step; None where it is not of a size that is recorded."""
        longest = max(segment.num_past for segment in batch.segments)
        rows = next((rows for rows in ROWS if rows >= batch.num_rows), None)
        context = next((context for context in CONTEXTS if context >= longest), None)
        if rows is None or context is None:
            return None
        room = Room(rows, context, self._share)
        size = self.storage.block_size
        end = batch.segments[-1].next_block(size) * size + rows - batch.num_rows
        fits = room.num_partials <= MAX_PARTIALS and end <= self.storage.keys.shape[1]
        longest_segment = max(segment.num_rows for segment in batch.segments)
        return room if fits and longest_segment <= LONGEST_TREE else None

    def _recording(self, room: Room, batch: ForwardBatch) -> _Recording | None:
        found = self._recordings.get(room)
        if found is not None or self._record is None:
            return found
        try:
            recording = _Recording(self, room, batch, self._record)
            self._check(recording.run(batch).logits, super().execute(batch).logits)
        except Exception as error:  # recording fails in many ways; all mean the same here
            reason = str(error).strip().partition("\n")[0]
            log.warning("steps are not recorded as CUDA graphs: %s", reason)
            self._record = None
            self._recordings.clear()
            return None
        return self._recordings.setdefault(room, recording)

    def _check(self, recorded: Tensor, expected: Tensor) -> None:
        apart = (recorded - expected).abs().max() / expected.abs().max()
        if not apart <= TOLERANCE:
            raise EngineError(f"a recorded step's logits are {apart:.2g} of the largest off")


class _Recording:
    """One size of step. All that changes from step to step is in one int64 tensor."""

    def __init__(
        self, runner: GraphedRunner, room: Room, batch: ForwardBatch, record: Record
    ) -> None:
        self._runner, self._room = runner, room
        storage, rows = runner.storage, room.rows
        numbers, tables = self._numbers(batch)
        blocks = rows * -(-room.context // storage.block_size)
        length = len(numbers) - len(tables.blocks) + blocks
        self._inputs = torch.zeros(length, dtype=torch.int64, device=runner.device)
        self._inputs[: len(numbers)] = torch.from_numpy(numbers)
        ids, masks, wanted, slots, rest = self._inputs.split([rows] * 4 + [length - 4 * rows])
        step = _RecordedStep(storage, slots, tables.on(rest), room.share)

        def forward() -> Outputs:
            embeds = runner.embedding(ids)
            own = runner.mask_embeddings.index_select(0, masks.clamp(min=0))
            embeds = torch.where((masks >= 0)[:, None], own, embeds)
            with attention_step(step):
                output = runner.model(
                    inputs_embeds=embeds[None],
                    position_ids=step.tables.positions[None, :rows],
                    use_cache=False,
                    logits_to_keep=wanted,
                )
            return output.logits[0], runner.take_hidden()

        (self._logits, self._hidden), self._replay = record(forward)

    def run(self, batch: ForwardBatch) -> ModelOutput:
        """As `ModelRunner.execute`."""
        numbers, _ = self._numbers(batch)
        self._inputs[: len(numbers)] = torch.from_numpy(numbers)
        self._replay()
        logits = self._logits[: len(batch.logit_rows)].float()
        return ModelOutput(logits, self._hidden[: batch.num_rows])

    def _numbers(self, batch: ForwardBatch) -> tuple[NDArray[np.int64], StepTables]:
        """What a forward reads of a step, in the order of the inputs; and its tables alone."""
        runner, room = self._runner, self._room
        batch = batch.padded(room.rows, runner.storage.block_size)
        laid = StepTables.of(batch, runner.storage, runner.num_prompts, room.share).padded(room)
        masks = np.full(room.rows, -1, np.int64)
        masks[batch.mask_rows] = batch.mask_slots
        wanted = np.pad(batch.logit_rows, (0, room.rows - len(batch.logit_rows)))
        own = [batch.token_ids, masks, wanted, batch.scratch_slots]
        return np.concatenate([*own, laid.flat()]), laid


class _RecordedStep:
    """An `AttentionStep` of tensors that stay where they are."""

    def __init__(self, storage: KVStorage, slots: Tensor, tables: DeviceTables, share: int) -> None:
        self.storage, self.slots, self.tables, self.share = storage, slots, tables, share

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`."""
        if query.shape[1] != self.share * key.shape[1]:
            raise EngineError("layers differ in how many query heads share a KV head")
        self.storage.write(call.layer, self.slots, key, value)
        return attend_paged(query, self.storage, self.tables, call)
