"""Who does a step's work: engines, learners and retrievers, and on which GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from calibadv.memory.plan import NODE_GPUS


@dataclass(frozen=True, slots=True)
class Engines:
    """Who samples."""

    number: int
    tensor_parallel: int = 1
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    max_concurrent: int = 256
    memory_share: float = 0.85  # of the card

    @property
    def gpus(self) -> int:
        return self.number * self.tensor_parallel

    @property
    def weight_bytes(self) -> int:
        """Bytes of one parameter."""
        return 2 if self.dtype == "bfloat16" else 4


@dataclass(frozen=True, slots=True)
class Learners:
    """Who learns, a GPU each, and what they do with each rollout beside training on it."""

    number: int
    zero: Literal[0, 1, 2, 3] = 3
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of matrix products: weights are fp32
    checkpointing: bool = True
    updates: int = 10  # optimizer steps of a pass over a training step's rollouts
    passes: int = 1
    token_budget: int = 16_384  # of a micro-batch
    models: int = 1  # that are trained: 2 with a critic that is a model
    adapters: bool = False  # alone are trained (LoRA): frozen weights have no gradients
    forwards: int = 0  # passes without gradient over every rollout: old log-probs, a reference, a critic's values


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a run and where they are. Colocated learners are beside an engine each, on its GPU, in turns.

    With `shared_memory` a colocated engine takes the weights from the learner beside it (`rollout.weight_transfer`).
    """

    engines: Engines
    learners: Learners
    colocated: bool = False
    shared_memory: bool = True
    max_staleness: int = 0
    retrievers: int = 1

    def __post_init__(self) -> None:
        if self.colocated and (self.max_staleness or self.engines.gpus < self.learners.number):
            raise ValueError(
                f"colocated with max_staleness {self.max_staleness}, {self.engines.gpus} GPUs of engines and "
                f"{self.learners.number} of learners: they take turns on the same GPUs, so that the first must be 0 "
                "and learners no more than engines"
            )

    @property
    def gpus(self) -> int:
        """GPUs of engines and learners; a retriever's are not counted."""
        return self.engines.gpus + (0 if self.colocated else self.learners.number)

    @property
    def in_place(self) -> bool:
        """Whether every engine has a learner beside it to take the weights from."""
        return self.colocated and self.shared_memory and self.engines.gpus == self.learners.number

    @property
    def remote_nodes(self) -> int:
        """Nodes with engines other than that of the learner which publishes. Nodes are filled one by one."""
        if self.gpus <= NODE_GPUS:
            return 0
        return math.ceil(self.engines.gpus / NODE_GPUS) - self.colocated
