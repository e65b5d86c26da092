"""A policy that calls tools: each turn that it may say is one token, and which comes is as likely as another.

Nothing before a turn reaches its choice: attention and MLP are zero, as they are initialised here, so that the last
token alone decides. A greedy rollout says the first line.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from calibadv.pocket import policy_path

END = "<|im_end|>"


def call(tool: str, **arguments: Any) -> str:
    """A turn of one call, as Hermes and Qwen3 write it."""
    body = json.dumps({"name": tool, "arguments": arguments})
    return f"<think>\nI ask for it.\n</think>\n\n<tool_call>\n{body}\n</tool_call>"


def answer(text: str) -> str:
    return f"<think>\nI know it.\n</think>\n\n<answer> {text} </answer>"


def calling_policy(folder: Path, template: str, turns: Sequence[str]) -> Path:
    """The folder of a policy that says `turns`, with this chat template."""
    shutil.copytree(policy_path(), folder, ignore=shutil.ignore_patterns("model.safetensors", "warm_start.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begun = len(tokenizer)
    tokenizer.add_tokens([AddedToken(turn, normalized=False) for turn in turns])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    config = Qwen2Config.from_pretrained(
        folder, hidden_size=16, intermediate_size=16, num_hidden_layers=1, vocab_size=len(tokenizer)
    )
    config.num_attention_heads = config.num_key_value_heads = 1
    config.head_dim, config.layer_types, config.tie_word_embeddings = 16, ["full_attention"], False
    model = Qwen2ForCausalLM(config)
    said = list(range(begun, len(tokenizer)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.ones_like(weight) if "norm" in name else torch.zeros_like(weight))
        inner, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        inner[:, 0] = 1.0  # a prompt's or a result's end: 4 after the norm
        inner[said] = torch.eye(16)[1]  # a turn: its end follows
        head[said, 0] = 4.0
        head[said[0], 0] = 4.02
        head[tokenizer.convert_tokens_to_ids(END), 1] = 8.0
    model.save_pretrained(folder)
    return folder
