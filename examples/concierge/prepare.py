"""Turn the Schema-Guided Dialogues into ChatML token streams and a tokenizer.

Part of the conversations (`WITH_TOOLS`) keep their function calls and declare the functions in
the system turn (Hermes form), some with described parameters, most without; the others drop
calls and results, so that the model also talks when a client declares no function.

Written to `--out`:

- `tokenizer/`: byte-level BPE tokenizer with the chat template;
- `train.npz`, `dev.npz`: `tokens` uint16 `[total]`, `weights` uint8 `[total]` (what a token's
  loss counts, in tenths), `starts` int64 `[conversations + 1]`;
- `train.jsonl`, `dev.jsonl`: the conversations as chat messages, for `bita tune` and benchmarks.

    python prepare.py --data shared/data/sgd --out build/concierge
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
]
SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Loss weight of a token by the role that wrote it, in tenths. Function definitions and results
# are copied from services: nothing of them has to be predicted.
WEIGHTS = {"system": 0, "tool": 0, "user": 3, "assistant": 10}
WITH_TOOLS = 0.35
DESCRIBED = 0.25
CONTEXT = 2048


def functions(schema: list[dict]) -> dict[str, list[dict]]:
    """OpenAI function definitions of every service of a schema file, by service name."""
    return {
        service["service"]: [_function(intent, service["slots"]) for intent in service["intents"]]
        for service in schema
    }


def _function(intent: dict, slots: dict) -> dict:
    names = [*intent["required"], *intent["optional"]]
    properties: dict[str, dict] = {
        name: {"type": "string", "description": slots[name]["description"]} for name in names
    }
    return {
        "type": "function",
        "function": {
            "name": intent["name"],
            "description": intent["description"],
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": intent["required"],
            },
        },
    }


def conversations(folder: Path, split: str, seed: int) -> Iterator[dict]:
    """Yield `{"messages", "tools"}` (tools None for the talk-only form) of a split, in order."""
    schema = functions(json.loads((folder / f"sgd-{split}-schema.json").read_text()))
    rng = random.Random(f"{seed}-{split}")
    with gzip.open(folder / f"sgd-{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            tools = [f for name in record["services"] for f in schema.get(name, [])]
            rng.shuffle(tools)
            if tools and rng.random() < WITH_TOOLS:
                if rng.random() >= DESCRIBED:
                    tools = [_undescribed(tool) for tool in tools]
                yield {"messages": [_openai(m) for m in record["messages"]], "tools": tools}
            else:
                yield {"messages": _talk_only(record["messages"]), "tools": None}


def _undescribed(tool: dict) -> dict:
    function = tool["function"]
    properties = {name: {"type": "string"} for name in function["parameters"]["properties"]}
    parameters = {**function["parameters"], "properties": properties}
    return {"type": "function", "function": {**function, "parameters": parameters}}


def _openai(message: dict) -> dict:
    """The message with its calls in OpenAI's form, results as text."""
    if "tool_calls" in message:
        calls = [{"type": "function", "function": call} for call in message["tool_calls"]]
        return {**message, "tool_calls": calls}
    if message["role"] == "tool":
        return {**message, "content": json.dumps(message["content"], ensure_ascii=False)}
    return message


def _talk_only(messages: list[dict]) -> list[dict]:
    return [m for m in messages if m["role"] != "tool" and m.get("content")]


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the ChatML specials; function markers stay visible in decoded text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(MARKERS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(MARKERS)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text()
    return fast


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, loss weights and starts of all conversations that fit the context."""
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    roles = {tuple(tokenizer.encode(role)): role for role in WEIGHTS}
    tokens: list[int] = []
    weights: list[int] = []
    starts = [0]
    for text in tqdm(texts, desc="encode", unit="conversation"):
        ids = tokenizer.encode(text)
        if len(ids) > CONTEXT:
            continue
        tokens += ids
        weights += _weights(ids, start, end, roles)
        starts.append(len(tokens))
    return np.array(tokens, np.uint16), np.array(weights, np.uint8), np.array(starts, np.int64)


def _weights(ids: list[int], start: int, end: int, roles: dict[tuple, str]) -> list[int]:
    """A turn's header is given by the template and weighs nothing; its text and end count."""
    weights = [0] * len(ids)
    opened = [i for i, token in enumerate(ids) if token == start]
    for i in opened:
        name = next(key for key in roles if tuple(ids[i + 1 : i + 1 + len(key)]) == key)
        first = i + 2 + len(name)  # behind the role and its newline
        last = ids.index(end, first)
        weights[first : last + 1] = [WEIGHTS[roles[name]]] * (last + 1 - first)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the sgd-*.jsonl.gz files"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens in the vocabulary")
    parser.add_argument("--seed", type=int, default=0, help="which conversations keep their calls")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    renderer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    renderer.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text()
    texts: dict[str, list[str]] = {}
    for split in ("train", "dev"):
        records = list(conversations(args.data, split, args.seed))
        with (args.out / f"{split}.jsonl").open("w") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        texts[split] = [
            renderer.apply_chat_template(c["messages"], tools=c["tools"], tokenize=False)
            for c in tqdm(records, desc=f"render {split}")
        ]
    tokenizer = train_tokenizer(texts["train"], args.vocabulary)
    tokenizer.save_pretrained(args.out / "tokenizer")
    for split, rendered in texts.items():
        tokens, weights, starts = encode(tokenizer, rendered)
        np.savez(args.out / f"{split}.npz", tokens=tokens, weights=weights, starts=starts)
        print(
            f"{split}: {len(starts) - 1} of {len(rendered)} conversations, {len(tokens):,} tokens, "
            f"{int((weights == 10).sum()):,} of them the assistant's"
        )


if __name__ == "__main__":
    main()
