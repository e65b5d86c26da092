"""The learner's state on disk, for a run that goes back to its own last good step.

Tensors and plain containers only, loaded with `weights_only`: nothing in the file can run code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

WEIGHTS = "snapshot.pt"


def save_snapshot(folder: Path, module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Writes the trainable weights and the optimizers' moments in one move: a reader never meets half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "weights": {name: tensor for name, tensor in module.state_dict().items() if _trains(name)},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
    }
    draft = folder / f"{WEIGHTS}.{os.getpid()}.tmp"
    torch.save(state, draft)
    draft.replace(folder / WEIGHTS)


def load_snapshot(folder: Path, module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Puts a snapshot's weights and moments in place. ValueError if it is of another model."""
    state: dict[str, Any] = torch.load(folder / WEIGHTS, weights_only=True, map_location="cpu")
    wanted = {name for name in module.state_dict() if _trains(name)}
    if wanted != set(state["weights"]) or set(optimizers) != set(state["optimizers"]):
        raise ValueError(f"the snapshot in {folder} is of another model or method: remove it and start anew")
    module.load_state_dict(state["weights"], strict=False)
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])


def _trains(name: str) -> bool:
    return not name.startswith("reference.")
