"""Train `bita-concierge`, a small Llama-architecture chat model, from scratch.

Batches hold conversations of like length, never packed: a conversation sees only itself.
Matrices are trained by Muon, embeddings and norms by AdamW; the learning rate warms up, stays
and then decays linearly to zero. `--out` holds the newest checkpoint (a run started again goes
on from it), `log.jsonl`, and at the end the bf16 model with its tokenizer.

    python train.py --data build/concierge --out build/concierge/run --steps 1100
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD = 0
LENGTH_STEP = 64
CHECKPOINT_EVERY = 50
DEV_BATCHES = 4


def build(vocabulary: int, eos: int) -> LlamaForCausalLM:
    """The architecture: 8.1 M parameters, six layers, ten query heads on five KV heads."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=6,
        num_attention_heads=10,
        num_key_value_heads=5,
        head_dim=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=PAD,
    )
    return LlamaForCausalLM(config)


class Conversations:
    """Token streams of one split, drawn in batches of about `batch_tokens` padded tokens."""

    def __init__(self, file: Path, batch_tokens: int) -> None:
        data = np.load(file)
        self.tokens, self.weights, self.starts = (data[k] for k in ("tokens", "weights", "starts"))
        self.lengths = np.diff(self.starts)
        self.batch_tokens = batch_tokens

    def epoch(self, seed: int) -> list[np.ndarray]:
        """Batches of conversation numbers; every conversation once, order drawn by `seed`."""
        rng = np.random.default_rng(seed)
        order = np.argsort(self.lengths + rng.uniform(0, LENGTH_STEP, len(self.lengths)))
        batches, batch = [], []
        for i in order:
            if batch and self._width(i) * (len(batch) + 1) > self.batch_tokens:
                batches.append(np.array(batch))
                batch = []
            batch.append(i)
        batches.append(np.array(batch))
        rng.shuffle(batches)  # type: ignore[arg-type]
        return batches

    def _width(self, i: int) -> int:
        return -(-int(self.lengths[i]) // LENGTH_STEP) * LENGTH_STEP

    def collate(self, batch: np.ndarray) -> tuple[Tensor, Tensor]:
        """Token ids int64 and loss weights float32 in 0..1, both `[conversations, width]`."""
        width = max(self._width(i) for i in batch)
        ids = np.full((len(batch), width), PAD, np.int64)
        weights = np.zeros((len(batch), width), np.float32)
        for row, i in enumerate(batch):
            part = slice(self.starts[i], self.starts[i + 1])
            ids[row, : self.lengths[i]] = self.tokens[part]
            weights[row, : self.lengths[i]] = self.weights[part] / 10
        return torch.from_numpy(ids), torch.from_numpy(weights)

    def forever(self, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch, epoch after epoch, from batch number `skip` on."""
        epoch = 0
        while True:
            batches = self.epoch(epoch)
            for batch in batches[skip:]:
                yield self.collate(batch)
            skip = max(0, skip - len(batches))
            epoch += 1


def losses(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats and weight of every token that counts, both `[counted]`."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    counted = weights[:, 1:] > 0
    logits = model.lm_head(hidden[counted]).float()
    loss = nn.functional.cross_entropy(logits, ids[:, 1:][counted], reduction="none")
    return loss, weights[:, 1:][counted]


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, dev: Conversations, batches: int) -> float:
    """Mean loss in nats over the assistant's tokens of the first `batches` development batches."""
    model.eval()
    total = count = 0.0
    for batch in dev.epoch(0)[:batches]:
        loss, weight = losses(model, *(t.to(model.device) for t in dev.collate(batch)))
        assistant = weight == 1
        total += float(loss[assistant].sum())
        count += int(assistant.sum())
    model.train()
    return total / count


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the machine multiplies it faster than fp32: a GPU, or a CPU with AMX."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def optimizers(
    model: LlamaForCausalLM, muon_lr: float, adam_lr: float
) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices, lr=muon_lr, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, steps: int, warmup: int = 30, decay: float = 0.5) -> float:
    """Factor on the learning rate: linear up, flat, linear down to zero over the last `decay`."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (steps * decay))


def save(path: Path, **state: object) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.data / "tokenizer")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(len(tokenizer), tokenizer.eos_token_id).to(device)
    data = Conversations(args.data / "train.npz", args.batch_tokens)
    dev = Conversations(args.data / "dev.npz", args.batch_tokens)
    optims = optimizers(model, args.muon_lr, args.adam_lr)
    checkpoint, first = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        first = state["step"]
    if args.compile:
        model.model.compile(dynamic=True)
    bar = tqdm(range(first, args.steps), initial=first, total=args.steps, unit="step")
    smooth, seen, start = None, 0, time.monotonic()
    with (args.out / "log.jsonl").open("a") as log:
        for step, (ids, weights) in zip(bar, data.forever(first), strict=False):
            for optim, lr in zip(optims, (args.muon_lr, args.adam_lr), strict=True):
                optim.param_groups[0]["lr"] = lr * schedule(step, args.steps)
            with autocast(device):
                loss, weight = losses(model, ids.to(device), weights.to(device))
            mean = (loss * weight).sum() / weight.sum()
            mean.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optim in optims:
                optim.step()
                optim.zero_grad(set_to_none=True)
            seen += int((ids != PAD).sum())
            smooth = mean.item() if smooth is None else 0.95 * smooth + 0.05 * mean.item()
            speed = seen / (time.monotonic() - start)
            bar.set_postfix(loss=f"{smooth:.3f}", tokens_per_s=f"{speed:.0f}")
            last = step + 1 == args.steps
            if (step + 1) % CHECKPOINT_EVERY == 0 or last:
                states = [optim.state_dict() for optim in optims]
                save(checkpoint, model=model.state_dict(), optims=states, step=step + 1)
                record = {"step": step + 1, "loss": smooth, "tokens_per_s": speed}
                record["dev_loss"] = evaluate(model, dev, DEV_BATCHES)
                log.write(json.dumps(record) + "\n")
                log.flush()
                tqdm.write(json.dumps(record))
    model.to(torch.bfloat16).save_pretrained(args.out / "model")
    tokenizer.save_pretrained(args.out / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder prepare.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, log and model")
    parser.add_argument("--steps", type=int, default=1100, help="optimiser steps")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="padded tokens a step")
    parser.add_argument("--muon-lr", type=float, default=4e-3, help="peak rate of the matrices")
    parser.add_argument("--adam-lr", type=float, default=3e-3, help="peak rate of the rest")
    parser.add_argument("--seed", type=int, default=0, help="initial weights")
    parser.add_argument("--compile", action="store_true", help="compile the trunk")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
