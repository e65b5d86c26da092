"""Learner connectors: groups in, mini-batches of packed micro-batches out.

GroupShard --AddAdvantages--> Row --FirstPass (where something is asked of it)--> Row
--CriticAdvantages (with a critic)--> Row --PackMinibatches--> [[MicroBatch]]

Rows keep the order of the groups' rollouts that train here all the way.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID

from calibadv.advantages.gae import moments, whiten
from calibadv.batching import GroupShard, Row
from calibadv.methods import Method
from calibadv.methods.method import Critic
from calibadv.methods.rows import credit_rows, critic_rewards, critic_row
from calibadv.micro_batches import micro_batches, padding
from calibadv.rllib.objective import to_tensors
from calibadv.rllib.ranks import most_of_ranks, sum_over_ranks
from calibadv.types import FloatArray

ROWS, OUTPUTS, MINIBATCHES, CREDIT = "rows", "outputs", "minibatches", "credit"
FACTS, NUM_MINIBATCHES = "facts", "num_minibatches"  # of `shared_data`


class AddAdvantages(ConnectorV2):  # type: ignore[misc]
    """Rows with the method's credit and weights, computed on whole groups before anything is split."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self._method = method

    def __call__(
        self, *, batch: dict[str, Any], episodes: Sequence[GroupShard], shared_data: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        batch[ROWS] = [row for shard in episodes for row in credit_rows(shard, self._method, shared_data[FACTS])]
        return batch


class FirstPass(ConnectorV2):  # type: ignore[misc]
    """The module's `wanted` outputs for every row, at the step's start; its log-probs take the place of the sampler's
    in the ratio."""

    def __init__(self, wanted: Set[str], token_budget: int) -> None:
        super().__init__()
        self._wanted, self._token_budget = wanted, token_budget

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        outputs = _forward(rl_module, batch[ROWS], self._token_budget, self._wanted)
        batch[OUTPUTS] = outputs
        if "logprobs_N" in self._wanted:
            batch[ROWS] = [
                replace(row, old_logprobs_N=out["logprobs_N"]) for row, out in zip(batch[ROWS], outputs, strict=True)
            ]
        return batch


class CriticAdvantages(ConnectorV2):  # type: ignore[misc]
    """Advantages and returns from the critic's values of the first pass, whitened over the whole step."""

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self._critic = critic

    def __call__(
        self, *, rl_module: Any, batch: dict[str, Any], episodes: Sequence[GroupShard], **_: Any
    ) -> dict[str, Any]:
        critic = self._critic
        rewards = critic_rewards(episodes, critic)
        rows = [critic_row(*given, critic) for given in zip(batch[ROWS], rewards, batch[OUTPUTS], strict=True)]
        batch[ROWS] = _whitened(rl_module, rows) if critic.whiten else rows
        return batch


class PackMinibatches(ConnectorV2):  # type: ignore[misc]
    """The rows of each mini-batch, packed. A learner without rows in one gets an empty list there.

    Rows without any credit are packed apart: where the surrogate is the whole loss they have no gradient, and the
    learner spares their backward pass. The credit that trains (advantage times weight) is kept beside, row by row.
    """

    def __init__(self, token_budget: int) -> None:
        super().__init__()
        self._token_budget = token_budget

    def __call__(
        self, *, rl_module: Any, batch: dict[str, Any], shared_data: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        packed = rl_module[DEFAULT_MODULE_ID].packs_rows
        rows: list[Row] = batch.pop(ROWS)
        batch[CREDIT] = [row.advantages_N * row.weights_N for row in rows]
        batch[MINIBATCHES] = [
            [
                micro
                for credited in (True, False)
                for micro in micro_batches(
                    [
                        row
                        for row in rows
                        if index in (row.minibatch, *row.later_minibatches) and row.advantages_N.any() == credited
                    ],
                    self._token_budget,
                    packed=packed,
                )
            ]
            for index in range(shared_data[NUM_MINIBATCHES])
        ]
        return batch


def _forward(rl_module: Any, rows: Sequence[Row], token_budget: int, wanted: Set[str]) -> list[dict[str, FloatArray]]:
    """The `wanted` [N] outputs of a forward pass without gradient, a dict a row, in the rows' order."""
    module = rl_module[DEFAULT_MODULE_ID]
    device = next(module.parameters()).device
    outputs: list[dict[str, FloatArray]] = [{} for _ in rows]
    made = micro_batches(rows, token_budget, packed=module.packs_rows)
    (passes,) = most_of_ranks([len(made)], device) if module.collective else [len(made)]
    with torch.no_grad():
        for micro in made:
            for name, flat_N in module.forward_train(to_tensors(micro, device), wanted=wanted).items():
                for index, part in zip(micro.rows, micro.by_row(flat_N.cpu().numpy()), strict=True):
                    outputs[index][name] = part
        for _ in range(passes - len(made)):
            module.forward_train(to_tensors(padding(), device), wanted=wanted)
    return outputs


def _whitened(rl_module: Any, rows: Sequence[Row]) -> list[Row]:
    device = next(rl_module[DEFAULT_MODULE_ID].parameters()).device
    count, total, squares = sum_over_ranks(moments([row.advantages_N for row in rows]), device)
    return [replace(row, advantages_N=whiten(row.advantages_N, count, total, squares)) for row in rows]
