"""How losses become new weights: what a learner asks for, and the learner that holds its whole state itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from calibadv.checkpoints.state_files import Tree
from calibadv.micro_batches import MicroBatch
from calibadv.rllib.lora import merged
from calibadv.rllib.module import CausalLMModule
from calibadv.rllib.ranks import sum_gradients
from calibadv.rllib.signal import NO_SIGNAL, Signal, last_signal

Optimizers = Mapping[str, torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class Update:
    """What became of an update, alike on all ranks."""

    grad_norms: Mapping[str, float]  # by optimizer, before clipping
    made: bool  # False: its loss or a gradient was not finite, and nothing changed
    signal: Signal = NO_SIGNAL  # of the policy's; nothing where its moments are shared out


class Updater(Protocol):
    """One step of every optimizer from the losses of a mini-batch. All ranks call the same at the same time."""

    def passes(
        self, minibatch: Sequence[MicroBatch], trains: Callable[[MicroBatch], bool]
    ) -> Iterator[tuple[MicroBatch, bool]]:
        """The micro-batches to run, each with whether its loss is given to `backward` before the next is asked for."""

    def backward(self, part: Tensor) -> None:
        """Adds the gradient of a micro-batch's part of the loss; the loss is the sum over micro-batches and ranks."""

    def step(self, lrs: Mapping[str, float], *, finite: bool) -> Update:
        """Steps along the clipped gradient with a learning rate for each optimizer; `finite`: whether the loss is.

        An optimizer at rate 0 rests: its moments stay too.
        """

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of the policy under its first name, each to be copied before the next is asked for.

        The names are Hugging Face's, adapters are merged in.
        """

    def shared_state(self) -> Tree:
        """Weights and moments, where all ranks hold them alike."""

    def own_state(self) -> Tree:
        """Weights and moments that only this rank holds."""

    def load_state(self, shared: Tree, own: Tree | None) -> None:
        """Takes weights and moments up. ValueError if they are another model's, method's or number of learners'."""


class PlainUpdater:
    """Every rank holds all weights, gradients and moments; gradients are summed over the ranks.

    Ranks may have unequal numbers of micro-batches: nothing but the step itself is done together.
    """

    def __init__(self, module: CausalLMModule, optimizers: Optimizers, grad_clip: float) -> None:
        self._module, self._optimizers, self._grad_clip = module, optimizers, grad_clip

    def passes(
        self, minibatch: Sequence[MicroBatch], trains: Callable[[MicroBatch], bool]
    ) -> Iterator[tuple[MicroBatch, bool]]:
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        for micro in minibatch:
            yield micro, trains(micro)

    def backward(self, part: Tensor) -> None:
        torch.autograd.backward(part)

    def step(self, lrs: Mapping[str, float], *, finite: bool) -> Update:
        norms = {name: self._sum_gradients_and_clip(optimizer) for name, optimizer in self._optimizers.items()}
        made = finite and all(map(math.isfinite, norms.values()))
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = lrs[name]
            if made and lrs[name]:
                optimizer.step()
        signal = last_signal(self._optimizers["policy"]) if made and lrs["policy"] else NO_SIGNAL
        return Update(norms, made, signal)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        return merged(dict(self._module.language_model.named_parameters()), self._module.lora_scale)

    def shared_state(self) -> Tree:
        return replica_state(self._module, self._optimizers)

    def own_state(self) -> Tree:
        return {}

    def load_state(self, shared: Tree, own: Tree | None) -> None:
        if "weights" not in shared:
            raise ValueError(
                "the state is shared out between learners (learner.zero), and this run's learners hold all"
            )
        load_replica_state(shared, self._module, self._optimizers)

    def _sum_gradients_and_clip(self, optimizer: torch.optim.Optimizer) -> float:
        """Global norm of the summed gradients, which are then clipped; not finite if any rank's gradient is not."""
        params = [param for part in optimizer.param_groups for param in part["params"]]
        sum_gradients(params)
        return float(torch.nn.utils.clip_grad_norm_(params, self._grad_clip))


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
        optimizer.state.clear()  # or a GPU would have to hold two optimizers' moments for a moment
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
