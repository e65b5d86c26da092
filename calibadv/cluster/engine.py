"""What a rollout worker asks of an engine: generate, take new weights in place, say which version it serves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch

from calibadv.rollout.protocols import GenerateFn

NamedTensors = Iterable[tuple[str, torch.Tensor]]
"""Weights under their Hugging Face names, e.g. `model.layers.0.self_attn.q_proj.weight`."""


class Engine(GenerateFn, Protocol):
    """A `GenerateFn` whose weights can be replaced while no request is running."""

    @property
    def version(self) -> int:
        """The policy version of the weights that it serves."""
        ...

    def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """Replace the weights and forget every cached prefix. Raises RuntimeError while requests are running."""
        ...

    def sleep(self) -> None:
        """Give back what memory of the GPU it can, until `wake`. Raises RuntimeError while requests are running."""
        ...

    def wake(self) -> None:
        """Be as before `sleep`: weights first, then caches. The weights' values need not have survived."""
        ...

    def close(self) -> None: ...


class LiveEngine(Engine, Protocol):
    """An engine that can take new weights while requests run."""

    def exchange_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """Replace the weights; running requests go on with the new ones, and keep what they have sampled."""
        ...
