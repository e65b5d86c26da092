"""The part of the vLLM engine that lives in its worker: new weights copied into the running model.

vLLM imports this module (`worker_extension_cls`) before it loads the model, which is when the CPU patches must act.
Shapes: B requests of a step, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from torch.nn.functional import linear
from vllm.model_executor.layers import utils as vllm_layers
from vllm.platforms import current_platform
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from calibadv.cluster.orphan import die_with
from calibadv.cluster.shared_block import BlockReader, Spec


def _keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:  # noqa: ARG001 (vLLM's signature)
    layer.__dict__["cpu_linear"] = linear  # a plain attribute; nn.Module's own setter is typed for tensors


def _sample_seeded(
    self: Any, logits: torch.Tensor, generators: dict[int, torch.Generator], k: Any, p: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One token per row [B] by inverse CDF, with one uniform number of the row's own generator.

    A greedy row has no generator, and vLLM does not read what is drawn for it.
    """
    logits = apply_top_k_top_p(logits, k, p)
    cdf_BV = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    noise = [torch.rand(1, generator=generators.get(row), dtype=torch.float64) for row in range(len(logits))]
    sampled_B1 = torch.searchsorted(cdf_BV, torch.stack(noise) * cdf_BV[:, -1:], right=True)
    told = logits.log_softmax(-1, dtype=torch.float32) if self.logprobs_mode == "processed_logprobs" else None
    return sampled_B1[:, 0].clamp(max=cdf_BV.shape[1] - 1), told


class _Unread(torch.Generator):
    """Draws for a row whose sample nobody reads. vLLM takes such a draw back by its offset, which no CPU has."""

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:  # noqa: ARG002
        return self


def _spare_generators(sample_tokens: Callable[..., Any]) -> Callable[..., Any]:
    """`sample_tokens` of a model runner that draws nothing from rows whose prompt goes on in the next step.

    A prompt that the step's token budget cuts is sampled all the same, and its token thrown away.
    """

    def spared(self: Any, *arguments: Any, **named: Any) -> Any:
        generators: dict[int, torch.Generator] = self.input_batch.generators
        cut_B = self.discard_request_mask.np[: self.input_batch.num_reqs]
        held = {row: generators[row] for row in cut_B.nonzero()[0].tolist() if row in generators}
        generators.update({row: _Unread() for row in held})
        try:
            return sample_tokens(self, *arguments, **named)
        finally:
            generators.update(held)

    return spared


if current_platform.is_cpu():
    # vLLM packs every linear weight for oneDNN and drops the original: a weight loaded later would never be read, and
    # a tied lm_head would keep a packed copy of the old embedding.
    vllm_layers.dispatch_cpu_unquantized_gemm = _keep_weight
    # vLLM draws an exponential number per vocabulary entry and request: a tenth of a small model's step.
    TopKTopPSampler.forward_cpu = _sample_seeded
    GPUModelRunner.sample_tokens = _spare_generators(GPUModelRunner.sample_tokens)  # the CPU's runner is a child of it


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

    def receive_block(self, path: str | None, size: int, specs: list[Spec]) -> list[str]:
        """The same with tensors that lie in a block of shared memory."""
        written = self.receive_weights(list(self._reader.tensors(path, size, specs)))
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the block is filled again when this returns
        return written

    @cached_property
    def _reader(self) -> BlockReader:
        return BlockReader()

    def die_with_engine(self, actor: int) -> None:
        """Ends this process, and vLLM's core, with the process `actor`."""
        die_with(actor)

    def gpu_memory(self) -> tuple[int, int]:
        """Bytes of this worker's GPU: free, and all."""
        return torch.cuda.mem_get_info()

    def parameter_names(self) -> list[str]:
        """Names of all parameters of the model in this worker (fused ones under vLLM's names)."""
        return [name for name, _ in cast(torch.nn.Module, self.model_runner.model).named_parameters()]
