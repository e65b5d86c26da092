"""liger-kernel's kernels under Triton's interpreter, on a CPU: run by test_fused.py in a process of its own.

Prints a JSON line a model: by how much log-probs and gradients differ from the model's own. Both packages are fetched
by scripts/kernels.sh; the interpreter of that Triton knows neither float arguments nor CUDA's rsqrt.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import liger_kernel.ops.rms_norm
import numpy as np
import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter
from transformers import PreTrainedModel

from calibadv.micro_batches import MicroBatch, micro_batches
from calibadv.rllib.fused import fuse
from calibadv.rllib.objective import to_tensors
from calibadv.rllib.policy import load_causal_lm, policy_pass
from tests.rllib.test_packed_attention import PACK, saved
from tests.test_micro_batches import row

CPU = torch.device("cpu")
MISTRAL = "Mistral without a window"
ROWS = [row([5, 6, 7, 8, 9], 3), row([5, 6, 7, 10], 3)]  # short: a program a token is interpreted, a ms or more each


def teach_the_interpreter() -> None:
    known = interpreter._implicit_cvt

    def converted(given: Any) -> Any:
        if not isinstance(given, float):
            return known(given)
        return tl.tensor(interpreter.TensorHandle(np.array([given], np.float32), tl.float32), tl.float32)

    interpreter._implicit_cvt = converted
    liger_kernel.ops.rms_norm.rsqrt = lambda x: 1.0 / tl.sqrt(x)


def trained(model: PreTrainedModel, micros: Sequence[MicroBatch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(log-probs of all action tokens, gradients of their sum)."""
    model.zero_grad()
    logprobs = [policy_pass(model, to_tensors(micro, CPU))[1].logprobs_N for micro in micros]
    torch.cat(logprobs).sum().backward()
    return torch.cat(logprobs).detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def main(folder: Path) -> None:
    teach_the_interpreter()
    for name, packed in (("Qwen2", False), ("Qwen2", True), ("Qwen3", True), ("Llama", True), (MISTRAL, True)):
        config = copy.deepcopy(PACK[name])
        config.num_hidden_layers = 1
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:1]
        model = load_causal_lm(saved(config, folder / f"{name} {packed}"), pack=packed)
        if packed:  # the forward pass is then interpreted twice
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
        micros = micro_batches(ROWS, 1000, packed=packed)
        (own_N, own), _ = trained(model, micros), fuse(model)
        logprobs_N, gradients = trained(model, micros)
        found = {
            "kind": model.config.model_type,
            "packed": packed,
            "norm": model.base_model.norm.forward.__module__,
            "logprobs": float((logprobs_N - own_N).abs().max()),
            "gradients": max(float((a - b).abs().max()) for a, b in zip(gradients, own, strict=True)),
            "largest_gradient": max(float(gradient.abs().max()) for gradient in own),
        }
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
