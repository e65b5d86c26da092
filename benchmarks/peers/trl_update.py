"""TRL's own loss on given rollouts, forwards and backwards: run by `benchmarks.trl` in TRL's environment.

A `GRPOTrainer` is made as a user makes it, and its `_compute_loss` is asked for the loss of the batches that it would
cut from these rollouts: shuffled, padded to the longest of all, eight at a time. Documents are masked by its
`tool_mask`. fp32, no activation checkpointing. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

BATCH = 8  # rollouts: TRL's default


def main() -> None:
    """Arguments: the rollouts, the model's folder, the tokenizer's, "scored" or "every" head position, rounds."""
    rows, model, tokenizer, positions, rounds = sys.argv[1:]
    torch.set_num_threads(1)
    arrays = dict(np.load(rows))
    ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    action = np.split(arrays["action"], np.cumsum(arrays["lengths"])[:-1])
    logprobs = np.split(arrays["logprobs"], np.cumsum(arrays["lengths"])[:-1])
    if positions == "scored":  # what it does on a GPU: elsewhere its head scores the padding too
        trl.trainer.utils._use_triton = lambda _: True
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                per_device_train_batch_size=BATCH,
                steps_per_generation=len(ids) // BATCH,
                gradient_accumulation_steps=len(ids) // BATCH,
                num_generations=BATCH,
                report_to=[],
            ),
            train_dataset=Dataset.from_list([{"prompt": "?"}] * BATCH),
            processing_class=AutoTokenizer.from_pretrained(tokenizer),
        )
    trainer.current_gradient_accumulation_steps = len(ids) // BATCH
    batches = batches_of(ids, action, logprobs, arrays["prompts"], arrays["advantages"])
    trainer.model.train()
    least, before = float("inf"), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    for _ in range(int(rounds)):
        begun = time.process_time()
        for batch in batches:
            trainer._compute_loss(trainer.model, batch).backward()
        trainer.model.zero_grad(set_to_none=True)
        least = min(least, time.process_time() - begun)
    print(json.dumps({"cpu_s": least, "peak_bytes": resident("VmHWM") - before}))  # noqa: T201


def batches_of(
    ids: Sequence[Any], action: Sequence[Any], logprobs: Sequence[Any], prompts: Any, advantages: Any
) -> list[dict[str, Any]]:
    """What `_compute_loss` takes: prompts padded on the left, completions on the right."""
    order = np.random.default_rng(0).permutation(len(ids))
    before, after = int(prompts.max()), max(len(row) - prompt for row, prompt in zip(ids, prompts, strict=True))
    made = {
        name: torch.zeros(len(ids), width, dtype=torch.long)
        for name, width in (
            ("prompt_ids", before),
            ("prompt_mask", before),
            ("completion_ids", after),
            ("completion_mask", after),
            ("tool_mask", after),
        )
    }
    made["old_per_token_logps"] = torch.zeros(len(ids), after)
    for place, index in enumerate(order):
        prompt, rest = int(prompts[index]), len(ids[index]) - int(prompts[index])
        made["prompt_ids"][place, before - prompt :] = torch.from_numpy(ids[index][:prompt])
        made["prompt_mask"][place, before - prompt :] = 1
        made["completion_ids"][place, :rest] = torch.from_numpy(ids[index][prompt:])
        made["completion_mask"][place, :rest] = 1
        made["tool_mask"][place, :rest] = torch.from_numpy(action[index][prompt:].astype(np.int64))
        made["old_per_token_logps"][place, :rest] = torch.from_numpy(logprobs[index][prompt:])
    made["advantages"] = torch.from_numpy(advantages[order])
    made["num_items_in_batch"] = made["tool_mask"].sum().expand(len(ids))
    cut = [{name: value[start : start + BATCH] for name, value in made.items()} for start in range(0, len(ids), BATCH)]
    return [{**batch, "num_items_in_batch": batch["num_items_in_batch"][0]} for batch in cut]


def resident(field: str) -> int:
    """Bytes of VmRSS or VmHWM of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith(field)).split()[1])


if __name__ == "__main__":
    main()
