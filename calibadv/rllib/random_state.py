"""The state of every random generator of this process, as a tree that files can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from calibadv.checkpoints.tree import Tree


def random_state() -> Tree:
    """Python's generator, NumPy's global one, torch's on the CPU and on every GPU this process sees."""
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    inner = numpy_state["state"]
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {"key": [int(word) for word in inner["key"]], "pos": int(inner["pos"])}},
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


def set_random_state(state: Tree) -> None:
    """Takes up where `random_state` was called. GPUs beyond those of then keep their own state."""
    random.setstate(state["python"])
    inner = state["numpy"]["state"]
    np.random.set_state({**state["numpy"], "state": {**inner, "key": np.asarray(inner["key"], dtype=np.uint32)}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, device)
