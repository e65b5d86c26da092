"""The part of the vLLM engine that lives in its worker: new weights copied into the running model.

vLLM imports this module (`worker_extension_cls`) before it loads the model, which is when the CPU patch must act.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn.functional import linear
from vllm.model_executor.layers import utils as vllm_layers
from vllm.platforms import current_platform


def _keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:  # noqa: ARG001 (vLLM's signature)
    layer.__dict__["cpu_linear"] = linear  # a plain attribute; nn.Module's own setter is typed for tensors


if current_platform.is_cpu():
    # vLLM packs every linear weight for oneDNN and drops the original: a weight loaded later would never be read, and
    # a tied lm_head would keep a packed copy of the old embedding.
    vllm_layers.dispatch_cpu_unquantized_gemm = _keep_weight


class WeightReceiver:
    """Mixed into vLLM's worker class."""

    model_runner: Any

    def receive_weights(self, named_tensors: list[tuple[str, torch.Tensor]]) -> list[str]:
        """Copy the tensors into the model; the names of the model's own parameters that were written."""
        model = self.model_runner.model
        tied = bool(getattr(self.model_runner.model_config.hf_text_config, "tie_word_embeddings", False))
        kept = [(name, tensor) for name, tensor in named_tensors if not (tied and name == "lm_head.weight")]
        with torch.no_grad():
            return sorted(model.load_weights(kept))

    def parameter_names(self) -> list[str]:
        """Names of all parameters of the model in this worker (fused ones under vLLM's names)."""
        return [name for name, _ in cast(torch.nn.Module, self.model_runner.model).named_parameters()]
