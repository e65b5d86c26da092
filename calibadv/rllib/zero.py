"""What DeepSpeed is told, and in which groups a sharded policy is gathered: pure functions.

ZeRO (Rajbhandari et al. 2020): several learners share AdamW's moments and the weights that it steps (stage 1), the
gradients too (stage 2), the weights too (stage 3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from calibadv.checkpoints.state_files import Tree
from calibadv.memory.items import ZERO_BUCKET, ZERO_LIVE


def deepspeed_config(stage: int, *, grad_clip: float, hidden_size: int, half: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration. The batch is ours: it only has to know that a backward pass may be the last one.

    Gradients are summed in fp32, over micro-batches and ranks: without `half` since the weights are fp32 whatever the
    autocast, with it (weights in bf16) since DeepSpeed is told so. Stage 3 leaves norms and biases whole on every rank:
    at most ten times the hidden size each, as transformers advises.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": False,
        "reduce_bucket_size": ZERO_BUCKET,
        "allgather_bucket_size": ZERO_BUCKET,
    }
    if stage == 3:
        zero |= {
            "sub_group_size": 2 * ZERO_BUCKET,
            "stage3_param_persistence_threshold": 10 * hidden_size,
            "stage3_prefetch_bucket_size": ZERO_BUCKET,
            "stage3_max_live_parameters": ZERO_LIVE,
            "stage3_max_reuse_distance": ZERO_LIVE,
            "memory_efficient_linear": False,  # would replace torch's linear in the whole process
        }
    precision: dict[str, Any] = {}
    if half:
        precision = {
            "bf16": {"enabled": True, "check_grad_overflow": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return precision | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": grad_clip,
        "steps_per_print": 2**31,
        "zero_optimization": zero,
    }


def layer_groups(names: Iterable[str]) -> list[list[str]]:
    """The weights' names in their order, those of one layer together and every other by itself.

    A layer is what comes up to the first number: model.layers.7 of model.layers.7.mlp.up_proj.weight.
    """

    def layer(name: str) -> str:
        found = re.match(r"(.+?\.\d+)\.", name)
        return found[1] if found else name

    return [list(group) for _, group in groupby(names, key=layer)]


def layout(stage: int, learners: int) -> Tree:
    """How a state is shared out, for `check_layout` to compare."""
    return {"stage": stage, "learners": learners}


def check_layout(there: Tree | None, here: Tree) -> None:
    """ValueError in words where a state was shared out in another way than this run does it. None: not at all."""
    if there == here:
        return
    if there is None:
        raise ValueError(
            "the state is of learners that hold all of it each, and this run's share it: set learner.zero to 0"
        )
    raise ValueError(
        f"the state is shared out as learner.zero = {there['stage']} does it between {there['learners']} learners, and "
        f"this run has learner.zero = {here['stage']} and {here['learners']} learners: each takes up its own share, so "
        f"set learner.zero to {there['stage']} and learner.learners to {there['learners']}, or begin a new run from "
        "the checkpoint's model"
    )
