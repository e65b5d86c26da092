"""What vLLM is asked, and what is made of its answers, whichever of its engines is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from calibadv.cluster.engine import NamedTensors
from calibadv.cluster.shared_block import BLOCK_BYTES
from calibadv.rollout.protocols import Generation, Sampling, StopReason
from calibadv.types import IntArray


def check_request(prompt_ids: IntArray, sampling: Sampling, max_model_len: int) -> None:
    """ValueError for a request that no engine could answer."""
    if not 0 < len(prompt_ids) < max_model_len:
        raise ValueError(
            f"the prompt has {len(prompt_ids)} tokens, max_model_len is {max_model_len}: at least one token must go in "
            "and one must have room to be sampled"
        )
    if sampling.max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {sampling.max_tokens}")


def batches(named_tensors: NamedTensors) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """The tensors, as many at a time as one call may carry."""
    batch: list[tuple[str, torch.Tensor]] = []
    for name, tensor in named_tensors:
        batch.append((name, tensor))
        if sum(t.nbytes for _, t in batch) >= BLOCK_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def check_complete(missing: Sequence[Collection[str]]) -> None:
    """ValueError where a tensor-parallel rank has parameters left, by name, that new weights did not write."""
    for rank, left in enumerate(missing):
        if left:
            raise ValueError(
                f"the weights leave {len(left)} of the model's parameters as they were on rank {rank} of the engine: "
                f"{sorted(left)[:5]}"
            )


def sampling_params(sampling: Sampling) -> Any:
    """vLLM's `SamplingParams`."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed % 2**63,
        stop=list(sampling.stop),
        include_stop_str_in_output=True,
        skip_special_tokens=False,  # a stop string may be a token of its own
        spaces_between_special_tokens=False,
        logprobs=0,  # of the sampled token alone
        flat_logprobs=True,
        # Cumulative, so that the last output is the very one that there is when nobody listens.
        output_kind=RequestOutputKind.FINAL_ONLY if sampling.heard is None else RequestOutputKind.CUMULATIVE,
    )


def generation_of(completion: Any) -> Generation:
    """Of a finished `CompletionOutput`."""
    if completion.finish_reason == "length":
        stop = StopReason.LENGTH
    else:  # the stop string; None or an id when an end-of-sequence token was sampled
        stop = StopReason.TAG if isinstance(completion.stop_reason, str) else StopReason.EOS
    logprobs = completion.logprobs
    first_L = logprobs.start_indices
    return Generation(
        ids=np.asarray(completion.token_ids, dtype=np.int64),
        logprobs=np.asarray([logprobs.logprobs[i] for i in first_L], dtype=np.float32),
        stop=stop,
    )
