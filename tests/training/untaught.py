"""A policy that cannot write the format: a Qwen2 as it is initialised, with the pocket tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from calibadv.pocket import policy_path


def untaught(folder: Path) -> Path:
    """The folder that it is saved in."""
    saved = folder / "untaught"
    tokenizer = AutoTokenizer.from_pretrained(policy_path())
    config = Qwen2Config.from_pretrained(policy_path(), hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    config.num_attention_heads = config.num_key_value_heads = 2
    config.layer_types = ["full_attention"]
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    return saved
