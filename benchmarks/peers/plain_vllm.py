"""vLLM as anyone uses it: `LLM.generate` on a list of requests, in this process, without a line of ours in its way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibadv.rollout.protocols import Sampling
from calibadv.types import IntArray

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
}


class PlainVllm:
    """An `LLM` with the settings of an engine of ours: CPU, float32, log-probs of the model's own logits."""

    def __init__(self, folder: Path, max_model_len: int, max_num_seqs: int) -> None:
        os.environ.update(ENVIRONMENT)
        from vllm import LLM

        self._llm = LLM(
            str(folder),
            dtype="float32",
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=4096,
            block_size=32,
            kv_cache_memory_bytes=2**30,
            enable_prefix_caching=True,
            logprobs_mode="raw_logprobs",
            enforce_eager=True,
            disable_log_stats=True,
        )

    def tokens(self, prompts: Sequence[IntArray], samplings: Sequence[Sampling]) -> int:
        """How many tokens it samples for all requests, given at once."""
        given: list[Any] = [{"prompt_token_ids": prompt_P.tolist()} for prompt_P in prompts]
        done = self._llm.generate(given, [_params(sampling) for sampling in samplings], use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in done)


def _params(sampling: Sampling) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
        stop=list(sampling.stop),
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        logprobs=0,
    )
