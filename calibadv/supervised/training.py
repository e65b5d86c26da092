"""Supervised training on demonstrations: cross-entropy of the action tokens, of nothing else."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from calibadv.batching import Row
from calibadv.micro_batches import micro_batches
from calibadv.rllib.objective import to_tensors
from calibadv.rllib.policy import action_hidden, action_stats, packs_rows
from calibadv.supervised.demonstrations import Demonstration

log = logging.getLogger(__name__)

_SAID_EVERY = 5  # steps


@dataclass(frozen=True, slots=True)
class GoldRecipe:
    """How the demonstrations are learned. Equal values on one machine give equal losses."""

    epochs: int = 3
    lr: float = 2e-5  # the peak
    batch: int = 8  # dialogues a step
    seed: int = 0
    threads: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"  # bfloat16 = autocast over fp32 master weights
    token_budget: int = 4096  # tokens a micro-batch, padding included: what is held in memory at once
    warmup: float = 0.1  # share of the steps
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "batch", "threads", "token_budget"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}; expected more than 0")

    def lr_at(self, step: int, steps: int) -> float:
        """The rate of `step` (from 0): up to the peak in a line, then down in a line that would meet 0 at `steps`."""
        up = max(1, round(self.warmup * steps))
        return self.lr * ((step + 1) / up if step < up else (steps - step) / (steps - up + 1))


@dataclass(slots=True)
class History:
    """What was learned so far: nats a token, of each step and, of the held-out dialogues, after each epoch."""

    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    tokens: int = 0  # of dialogues, padding not counted
    action_tokens: int = 0
    seconds: float = 0.0  # of the steps alone


def train(
    model: PreTrainedModel,
    demonstrations: Sequence[Demonstration],
    recipe: GoldRecipe,
    held_out: Sequence[Demonstration] = (),
) -> History:
    """The history of training `model` in place with AdamW. ValueError where the loss is not finite."""
    torch.manual_seed(recipe.seed)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.0)
    steps = recipe.epochs * math.ceil(len(demonstrations) / recipe.batch)
    history = History()
    for epoch in range(recipe.epochs):
        for rows in batches(demonstrations, recipe, epoch):
            started = time.perf_counter()
            optimizer.param_groups[0]["lr"] = recipe.lr_at(len(history.losses), steps)
            loss = step_loss(model, rows, recipe)
            if not math.isfinite(loss):
                raise ValueError(f"the loss of step {len(history.losses) + 1} is {loss}: lower --lr {recipe.lr}")
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            history.seconds += time.perf_counter() - started
            history.losses.append(loss)
            history.tokens += sum(len(row.ids_T) for row in rows)
            history.action_tokens += sum(int(row.action_T.sum()) for row in rows)
            if len(history.losses) % _SAID_EVERY == 0 or len(history.losses) == steps:
                _say(history, steps)
        if held_out:
            history.held_out.append(mean_loss(model, held_out, recipe))
            log.info("epoch %d of %d: held-out loss %.4f nats", epoch + 1, recipe.epochs, history.held_out[-1])
    return history


def batches(demonstrations: Sequence[Demonstration], recipe: GoldRecipe, epoch: int) -> Iterator[list[Row]]:
    """The rows of each step of an epoch, shuffled; which form of a dialogue is learned in it is drawn, half and half.

    So one warm start serves methods with PreThink and without it.
    """
    rng = random.Random(f"gold warm start {recipe.seed} {epoch}")
    rows = [rng.choice((shown.written, shown.prefilled)) for shown in demonstrations]
    rng.shuffle(rows)
    for first in range(0, len(rows), recipe.batch):
        yield rows[first : first + recipe.batch]


def step_loss(model: PreTrainedModel, rows: Sequence[Row], recipe: GoldRecipe) -> float:
    """Mean cross-entropy in nats of the rows' action tokens; adds its gradient to the model's parameters.

    Every action token of the step weighs the same, however the rows fall into micro-batches.
    """
    total = sum(int(row.action_T.sum()) for row in rows)
    loss = 0.0
    for part in _parts(model, rows, recipe):
        (part / total).backward()  # type: ignore[no-untyped-call]
        loss += part.item() / total
    return loss


@torch.no_grad()
def mean_loss(model: PreTrainedModel, demonstrations: Sequence[Demonstration], recipe: GoldRecipe) -> float:
    """Mean cross-entropy in nats of the action tokens of dialogues in both forms; leaves the model in training mode."""
    rows = [row for shown in demonstrations for row in (shown.written, shown.prefilled)]
    model.eval()
    total = sum(part.item() for part in _parts(model, rows, recipe))
    model.train()
    return total / sum(int(row.action_T.sum()) for row in rows)


def _parts(model: PreTrainedModel, rows: Sequence[Row], recipe: GoldRecipe) -> Iterator[Tensor]:
    """The summed cross-entropy of each micro-batch. Logits exist for action tokens alone, a chunk at a time."""
    for micro in micro_batches(rows, recipe.token_budget, packed=packs_rows(model)):
        batch = to_tensors(micro, model.device)
        with _autocast(recipe, model.device):
            stats = action_stats(model, action_hidden(model.base_model, batch), batch)
        yield -stats.logprobs_N.sum()


def _autocast(recipe: GoldRecipe, device: torch.device) -> contextlib.AbstractContextManager[None]:
    if recipe.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _say(history: History, steps: int) -> None:
    recent = history.losses[-_SAID_EVERY:]
    log.info(
        "step %d of %d: loss %.4f nats, %.0f tokens/s",
        len(history.losses),
        steps,
        sum(recent) / len(recent),
        history.tokens / max(history.seconds, 1e-9),
    )
