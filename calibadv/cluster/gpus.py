"""Whether the GPUs of this machine can hold vLLM's engines as they are placed, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from calibadv.config import Config
from calibadv.memory.advice import remedy
from calibadv.memory.items import GB, USABLE, gib
from calibadv.memory.parts import engine_part, gpus_wanted
from calibadv.memory.shape import model_shape


def check_gpus(config: Config, model: Path | None, cards: Sequence[int]) -> None:
    """ValueError where engines would not start, or not wake beside a learner, on GPUs of `cards` bytes each.

    Without GPUs, and for a cluster, whose are elsewhere, nothing is asked. `model`: its folder; None is not here yet.
    """
    rollout = config.rollout
    if not cards or config.cluster.address != "local" or rollout.engine != "vllm":
        return
    if config.cluster.gpus_per_engine == 0:
        raise ValueError(
            f"cluster.gpus_per_engine = 0, and torch sees {len(cards)} here: every vLLM engine would take "
            f"{rollout.gpu_memory_utilization:.0%} of the first; set it to 1 (the pocket world: --config pocket-gpu), "
            "or rollout.engine to 'torch' for a CPU"
        )
    if not rollout.colocated or model is None:
        return
    shape, card_gb = model_shape(str(model)), min(cards) / USABLE / GB  # of the driver's own bytes nothing is set aside
    engine = engine_part(config, shape)
    if (spare := engine.spare_bytes(card_gb)) < 0:
        raise ValueError(
            f"rollout.gpu_memory_utilization = {rollout.gpu_memory_utilization:g} of a card of {gib(min(cards))}: "
            f"beside a resting learner of {gib(engine.beside_bytes)} an engine that needs {gib(engine.total_bytes)} is "
            f"{gib(-spare)} short; {remedy(engine, config, shape, card_gb)}"
        )


def check_room(config: Config, gpus: float) -> None:
    """ValueError where a local Ray of so many GPUs has too few: what asks for more would wait in vain."""
    if (wanted := gpus_wanted(config)) > gpus + 1e-6:  # shares are sums of decimals
        raise ValueError(
            f"engines, learners and search ask for {wanted:g} GPUs, and this machine has {gpus:g}: on a CPU set "
            "cluster.gpus_per_engine, learner.gpus_per_learner and search.num_gpus to 0; GPUs elsewhere: "
            "cluster.address"
        )


def cards_here() -> tuple[int, ...]:
    """Bytes of each GPU that torch can use."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(torch.cuda.get_device_properties(number).total_memory for number in range(count))
