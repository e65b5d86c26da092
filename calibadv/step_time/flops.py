"""Floating-point operations of a transformer's passes, and the record of a phase that spends them.

P_L parameters of all layers, H hidden, L layers, V vocabulary. A multiplication and an addition count as two.
"""

from __future__ import annotations

from dataclasses import dataclass

from calibadv.memory.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Phase:
    """Seconds of a part of the step, by what they are spent on, and what bounds it."""

    parts: dict[str, float]
    bound: str

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def layer_parameters(shape: ModelShape) -> int:
    """P_L: without the embedding, which multiplies nothing, and the head, which sees action tokens alone."""
    return shape.parameters - (1 if shape.tied else 2) * shape.embedding


def layer_flops(shape: ModelShape, tokens: float, context: float) -> float:
    """Of a forward pass of `tokens` through the layers, each of which attends to `context` others in the mean.

    2 P_L a token (Kaplan et al. 2020, 2.1), and 4 L H for each token that it attends to: scores and weighted sum, with
    attention as wide as the hidden states, as in Qwen2.5 and Llama 3.
    """
    return tokens * (2 * layer_parameters(shape) + 4 * shape.layers * shape.hidden * context)


def head_flops(shape: ModelShape, tokens: float) -> float:
    """Of the logits of `tokens`: 2 V H each."""
    return 2 * shape.embedding * tokens
