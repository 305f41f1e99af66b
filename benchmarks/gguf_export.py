"""A Llama-architecture model folder as a GGUF file for llama.cpp.

    python -m benchmarks.gguf_export --model models/bita-concierge --dtype float32 --out model.gguf

Needs the `gguf` package (`pip install 'bita-serve[bench]'`). Prompts are to be sent as token ids:
the tokens are named right, so text that comes back is right, but of llama.cpp's pre-tokenizers the
nearest is noted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file
from torch import Tensor

from models import DEFAULT_MODEL

TYPES = {
    "float32": (torch.float32, gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "float16": (torch.float16, gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bfloat16": (torch.bfloat16, gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}


def export(model: Path, out: Path, dtype: str) -> None:
    """Write `model` to `out`; matrices in `dtype`, vectors in float32 as llama.cpp wants them.

    Raises ValueError for another architecture, or rope that is scaled.
    """
    config = json.loads((model / "config.json").read_text())
    rope = config["rope_parameters"]
    if config["model_type"] != "llama" or rope["rope_type"] != "default" or config["mlp_bias"]:
        raise ValueError(f"{model} is no Llama without scaled rope and biases")
    torch_type, tensor_type, file_type = TYPES[dtype]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_file_type(file_type)
    _add_shape(writer, config, rope["rope_theta"])
    _add_tokens(writer, model, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(model / "model.safetensors").items():
        new = names.get_name(name, try_suffixes=(".weight",))
        if new is None:
            raise ValueError(f"llama.cpp has no name for {name}")
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = interleaved(tensor, config["head_dim"])
        if tensor.dim() == 1:
            writer.add_tensor(new, tensor.float().numpy())
        elif dtype == "bfloat16":
            raw = tensor.to(torch_type).contiguous().view(torch.uint8).numpy()
            writer.add_tensor(new, raw, raw_dtype=tensor_type)
        else:
            writer.add_tensor(new, tensor.to(torch_type).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key projection, [heads * head_dim, hidden], in llama.cpp's order.

    Hugging Face turns row i of a head together with row i + head_dim / 2, llama.cpp rows 2 i and
    2 i + 1.
    """
    halves = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any], theta: float) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokens(writer: gguf.GGUFWriter, model: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokens = {i: token for token, i in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        special = added["special"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
    ids = range(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokens.get(i, f"<unused{i}>") for i in ids])
    writer.add_token_types([kinds.get(i, gguf.TokenType.UNUSED) for i in ids])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)


def main() -> None:
    """Write a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="model folder")
    parser.add_argument("--dtype", default="float32", choices=TYPES, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    export(args.model, args.out, args.dtype)
    print(json.dumps({"file": str(args.out), "bytes": args.out.stat().st_size}))


if __name__ == "__main__":
    main()
