"""Held-out loss of a trained model, and conversations to read.

python evaluate.py --data build/concierge --model models/bita-concierge --show 3
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from train import Conversations, losses
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH_TOKENS = 8192


@torch.inference_mode()
def held_out_loss(model: torch.nn.Module, dev: Conversations, share: float) -> tuple[float, int]:
    """Total nats and number of the assistant's tokens over a share of the development batches."""
    total, count = 0.0, 0
    batches = dev.epoch(0)
    for batch in tqdm(batches[: max(1, round(len(batches) * share))], desc="loss", unit="batch"):
        loss, weight = losses(model, *dev.collate(batch))
        total += float(loss[weight == 1].sum())
        count += int((weight == 1).sum())
    return total, count


def words_per_token(dev: Conversations, tokenizer: object, sample: int = 400) -> float:
    """Words (separated by spaces) of assistant text a token, over some conversations."""
    words = tokens = 0
    for i in np.linspace(0, len(dev.lengths) - 1, sample).astype(int):
        part = slice(dev.starts[i], dev.starts[i + 1])
        own = dev.tokens[part][dev.weights[part] == 10]
        words += len(tokenizer.decode(own).split())  # type: ignore[attr-defined]
        tokens += len(own)
    return words / tokens


@torch.inference_mode()
def show(model: torch.nn.Module, tokenizer: object, record: dict) -> None:
    """Play a conversation: the users' turns are given, the assistant's are the model's."""
    said: list[dict] = []
    for message in record["messages"]:
        if message["role"] != "assistant":
            said.append(message)
            content = message["content"]
            print(f"**{message['role']}:** {content[:160]}{'…' if len(content) > 160 else ''}  ")
            continue
        prompt = tokenizer.apply_chat_template(  # type: ignore[operator]
            said, tools=record["tools"], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(prompt, return_tensors="pt").input_ids  # type: ignore[operator]
        if ids.shape[1] > 1800:
            break
        output = model.generate(ids, max_new_tokens=128, do_sample=False, pad_token_id=0)
        text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)  # type: ignore[attr-defined]
        print(f"**assistant:** {text}  ")
        said.append({"role": "assistant", "content": text})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder prepare.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--share", type=float, default=1.0, help="share of development batches")
    parser.add_argument("--show", type=int, default=0, help="conversations to print")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, local_files_only=True
    ).eval()
    dev = Conversations(args.data / "dev.npz", BATCH_TOKENS)
    with (args.data / "dev.jsonl").open() as file:
        records = [json.loads(line) for line in file]
    for record in records[5 :: max(1, len(records) // max(1, args.show))][: args.show]:
        show(model, tokenizer, record)
        print("\n---\n")
    total, count = held_out_loss(model, dev, args.share)
    nats = total / count
    words = words_per_token(dev, tokenizer)
    result = {"dev_nats_per_token": nats, "dev_perplexity_per_word": math.exp(nats / words)}
    print(json.dumps({**result, "assistant_tokens": count, "words_per_token": words}))


if __name__ == "__main__":
    main()
