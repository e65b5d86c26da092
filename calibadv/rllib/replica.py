"""The state that every plain learner holds alike: trainable weights, and the optimizers' moments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from calibadv.checkpoints.tree import Tree


def replica_state(module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> Tree:
    """Weights by name (tied ones once, frozen ones left out) and each optimizer's state. Nothing is copied."""
    return {
        "weights": trained_weights(module),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
    }


def load_replica_state(state: Tree, module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Puts weights and moments in place. ValueError if they are of another model or method."""
    weights = trained_weights(module)
    there = {name: tensor.shape for name, tensor in state["weights"].items()}
    if there != {name: tensor.shape for name, tensor in weights.items()} or set(optimizers) != set(state["optimizers"]):
        raise ValueError("the state is of another model or method than this run's")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(state["weights"][name])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter that trains and saved buffer of the module but the reference's, under its first name."""
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        if not frozen and not name.startswith("reference.") and id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor
    return named
