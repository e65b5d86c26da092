"""A tiny random Qwen2 with tied embeddings and a byte-level tokenizer, and what transformers says about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

EOS = "<|end|>"
ANSWER_TAG = "</answer>"  # one added token
MAX_LEN = 256


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A saved model of vocabulary 300: the 256 bytes, fillers, one tag and the end of sequence."""
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {f"w{i}": i for i in range(len(vocab), 298)}
    core = Tokenizer(models.BPE(vocab, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS)
    tokenizer.add_tokens([ANSWER_TAG])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        max_position_embeddings=MAX_LEN,
        initializer_range=0.2,  # far from uniform, so that a wrong weight shows
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def perturbed(folder: Path, scale: float = 0.05, seed: int = 1) -> Any:
    """The model in `folder` with noise on every weight, the tied embedding included."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=noise))
    return model.eval()


def prompt(seed: int, length: int = 40) -> np.ndarray:
    """Random byte tokens [length]."""
    return np.random.default_rng(seed).integers(0, 256, length)


@torch.no_grad()
def reference_logprobs(model: Any, prompt_ids: np.ndarray, ids: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Log-probs [L] that transformers gives the sampled ids after the prompt."""
    whole = torch.tensor([[*prompt_ids.tolist(), *ids.tolist()]])
    logprobs_TV = (model(whole).logits[0] / temperature).log_softmax(-1)
    return logprobs_TV[len(prompt_ids) - 1 : -1].gather(1, whole[0, len(prompt_ids) :, None])[:, 0].numpy()


@torch.no_grad()
def reference_greedy(model: Any, prompt_ids: np.ndarray, max_tokens: int) -> list[int]:
    """Greedy tokens of transformers, the end of sequence included."""
    ids_BT = torch.tensor([prompt_ids.tolist()])
    output = model.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=max_tokens, do_sample=False, pad_token_id=0
    )
    return [int(i) for i in output[0, len(prompt_ids) :]]
