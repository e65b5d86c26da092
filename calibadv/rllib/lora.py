"""Adapters beside frozen weights (LoRA, Hu et al. 2022): putting them in, leaving them out, merging them on the side.

A layer of weight W [O, I] becomes W + scale · B A with A [R, I] and B [O, R], scale = alpha / rank. B starts at zero,
so that the first policy is the base itself. There is no dropout: the ratio compares with an engine that has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calibadv.config import LearnerConfig

_ADAPTER = "default"


@dataclass(frozen=True, slots=True)
class Lora:
    """Which adapters there are. `seed`: of A, alike on every learner."""

    rank: int
    alpha: float
    targets: Literal["all-linear"] | tuple[str, ...]
    seed: int

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank


def lora_of(settings: LearnerConfig, seed: int) -> Lora | None:
    """The adapters that the settings ask for; None where all weights are trained."""
    if settings.lora_rank == 0:
        return None
    return Lora(settings.lora_rank, settings.lora_alpha, settings.lora_targets, seed)


def add_adapters(model: PreTrainedModel, lora: Lora) -> None:
    """Freezes the model's weights and puts adapters beside its target layers, in place; the model's class stays.

    Raises ValueError for targets that the model does not have, and RuntimeError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RuntimeError(
            f"learner.lora_rank needs peft ({error}): pip install 'calibadv[gpu]' or 'calibadv[cpu]', or set it to 0"
        ) from None
    layers = target_layers(model, lora.targets)
    with torch.random.fork_rng(devices=[]):  # the learner's own generator goes on as if there were no adapters
        torch.manual_seed(lora.seed)
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=layers, lora_dropout=0.0, bias="none")
        inject_adapter_in_model(config, model, _ADAPTER)


def target_layers(model: PreTrainedModel, targets: Literal["all-linear"] | tuple[str, ...]) -> list[str]:
    """Names in the model of the linear layers of its decoder that get adapters: all, or those whose last name is given.

    The head is none of them, for its weight is read without a pass through the layer. ValueError for a name that no
    layer has, and for a model without linear layers.
    """
    trunk = model.base_model
    inside = {id(layer) for layer in trunk.modules() if isinstance(layer, nn.Linear)}
    names = [name for name, layer in model.named_modules() if id(layer) in inside]
    known = dict.fromkeys(name.rpartition(".")[2] for name in names)
    wanted = list(known) if targets == "all-linear" else targets
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"learner.lora_targets names {', '.join(unknown)}, which no linear layer of the decoder of "
            f"{type(model).__name__} is called: expected names among {', '.join(known) or 'none'}"
        )
    if not names:
        raise ValueError(
            f"learner.lora_rank is set, and the decoder of {type(model).__name__} has no linear layer: set it to 0"
        )
    return [name for name in names if name.rpartition(".")[2] in wanted]


@contextlib.contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Passes inside are the base's: W + 0 · B A."""
    from peft.tuners.lora import LoraLayer

    # Weighed by zero instead of left out: learners that share their weights see the same modules in every pass.
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.set_scale(_ADAPTER, 0.0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(_ADAPTER, 1.0)
        # An adapter's bf16 copy of a pass without gradients has none, and autocast would give it to the next pass too.
        torch.clear_autocast_cache()


def merged(weights: Mapping[str, Tensor], scale: float) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names that they have without adapters, those of targets with theirs in: W + scale · B A.

    A sum is a tensor of its own in fp32, made when it is asked for; W itself is only read. Adapters must be among the
    `weights` together with their layer. Without adapters: the weights as they are.
    """
    for name, weight in weights.items():
        layer, base, leaf = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        if not base:
            yield name, weight
        elif leaf != "weight":
            yield f"{layer}.{leaf}", weight
        else:
            a_RI, b_OR = (weights[f"{layer}.lora_{part}.{_ADAPTER}.weight"].detach().float() for part in "AB")
            yield f"{layer}.weight", torch.addmm(weight.detach().float(), b_OR, a_RI, alpha=scale)
