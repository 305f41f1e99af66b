"""Held-out loss of a trained model, its function calls against the recorded ones, and
conversations to read.

python evaluate.py --data build/concierge --model models/bita-concierge --calls 200 --show 3
"""

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm
from train import Conversations, losses
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.answers import EngineAnswers
from engine.config import EngineConfig
from engine.load import load_engine
from server.chat_template import ChatTemplate

BATCH_TOKENS = 8192
MAX_PROMPT = 1800
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


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


def score_calls(folder: Path, records: list[dict], limit: int) -> tuple[int, int, int, int]:
    """Function calls where the recorded conversation has one, the true turns before it given.

    Returns how many: asked for, well-formed, with the recorded name, with its arguments as well.
    """
    template = ChatTemplate.load(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    engine = EngineAnswers(load_engine(EngineConfig(model=str(folder), max_num_seqs=16)))
    asked: list[dict] = []
    prompts: list[list[int]] = []
    for record in records:
        for i, message in enumerate(record["messages"]):
            if not message.get("tool_calls"):
                continue
            text = template.render(_as_sent(record["messages"][:i]), record["tools"])
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) <= MAX_PROMPT:
                asked.append(message["tool_calls"][0]["function"])
                prompts.append(list(ids))
    step = max(1, len(prompts) // limit)
    asked, prompts = asked[::step][:limit], prompts[::step][:limit]
    formed = named = exact = 0
    for first in tqdm(range(0, len(prompts), 16), desc="calls", unit="batch"):
        answers = engine.answers(prompts[first : first + 16], 128)
        for answer, call in zip(answers, asked[first:], strict=False):
            found = CALL.search(tokenizer.decode(answer))
            try:
                said = json.loads(found[1]) if found else None
            except ValueError:
                said = None
            if not isinstance(said, dict):
                continue
            wanted = call["arguments"]
            wanted = json.loads(wanted) if isinstance(wanted, str) else wanted
            formed += 1
            named += said.get("name") == call["name"]
            exact += said.get("name") == call["name"] and said.get("arguments") == wanted
    return len(prompts), formed, named, exact


def _as_sent(messages: list[dict]) -> list[dict]:
    """Messages as clients send them: arguments are a JSON string."""
    sent = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": json.dumps(arguments)}}
            for call in message.get("tool_calls") or []
            if not isinstance(arguments := call["function"]["arguments"], str)
        ]
        sent.append({**message, "tool_calls": calls} if calls else message)
    return sent


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
    parser.add_argument("--calls", type=int, default=0, help="recorded function calls to compare")
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
    if args.calls:
        total, formed, named, exact = score_calls(args.model, records, args.calls)
        print(json.dumps({"calls": total, "formed": formed, "named": named, "exact": exact}))
    nats_total, count = held_out_loss(model, dev, args.share)
    nats = nats_total / count
    words = words_per_token(dev, tokenizer)
    result = {"dev_nats_per_token": nats, "dev_perplexity_per_word": math.exp(nats / words)}
    print(json.dumps({**result, "assistant_tokens": count, "words_per_token": words}))


if __name__ == "__main__":
    main()
