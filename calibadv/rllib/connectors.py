"""Learner connectors: groups in, mini-batches of packed micro-batches out.

GroupShard --AddAdvantages--> Row --RecomputeLogprobs (optional)--> Row --PackMinibatches--> [[MicroBatch]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2

from calibadv.batching import GroupShard, Row, micro_batches, to_row
from calibadv.methods import Method
from calibadv.rllib.tensors import to_tensors

ROWS, MINIBATCHES = "rows", "minibatches"


class AddAdvantages(ConnectorV2):  # type: ignore[misc]
    """Rows with the method's credit, computed on whole groups before anything is split."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self._method = method

    def __call__(self, *, batch: dict[str, Any], episodes: Sequence[GroupShard], **_: Any) -> dict[str, Any]:
        batch[ROWS] = [
            to_row(trajectory, advantages_N, minibatch)
            for shard in episodes
            for trajectory, advantages_N, minibatch in zip(
                shard.group.trajectories, self._method.advantages(shard.group), shard.minibatch_G, strict=True
            )
        ]
        return batch


class RecomputeLogprobs(ConnectorV2):  # type: ignore[misc]
    """Old log-probs from the learner's own forward pass at the step's start, instead of the sampler's."""

    def __init__(self, token_budget: int) -> None:
        super().__init__()
        self._token_budget = token_budget

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        module = rl_module["default_policy"]
        device = next(module.parameters()).device
        rows: list[Row] = sorted(batch[ROWS], key=lambda row: len(row.ids_T), reverse=True)
        flat = []
        with torch.no_grad():
            for micro in micro_batches(rows, self._token_budget):
                flat.append(module.forward_train(to_tensors(micro, device))["logprobs_N"].cpu().numpy())
        bounds = np.cumsum([len(row.advantages_N) for row in rows])[:-1]
        recomputed = np.split(np.concatenate(flat), bounds) if rows else []
        batch[ROWS] = [replace(row, old_logprobs_N=old_N) for row, old_N in zip(rows, recomputed, strict=True)]
        return batch


class PackMinibatches(ConnectorV2):  # type: ignore[misc]
    """The rows of each mini-batch, packed. A learner without rows in one gets an empty list there.

    Rows without any credit are packed apart: where the surrogate is the whole loss they have no gradient, and the
    learner spares their backward pass.
    """

    def __init__(self, token_budget: int) -> None:
        super().__init__()
        self._token_budget = token_budget

    def __call__(self, *, batch: dict[str, Any], shared_data: dict[str, Any], **_: Any) -> dict[str, Any]:
        rows: list[Row] = batch.pop(ROWS)
        batch[MINIBATCHES] = [
            [
                micro
                for credited in (True, False)
                for micro in micro_batches(
                    [row for row in rows if row.minibatch == index and row.advantages_N.any() == credited],
                    self._token_budget,
                )
            ]
            for index in range(shared_data["num_minibatches"])
        ]
        return batch
