"""TorchLearner of a policy gradient over calibrated advantages.

An update is one optimizer step on one mini-batch of rollouts: its micro-batches are accumulated, gradients are summed
over the ranks, and the loss is the mean over *all* action tokens of the mini-batch, wherever they were trained.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from torch import Tensor, distributed

from calibadv.batching import GroupShard, MicroBatch, micro_batches, to_row
from calibadv.cluster.weights import PackedWeights, chunk_state
from calibadv.config import LearnerSection
from calibadv.losses import clipped_surrogate, importance_weights, low_variance_kl
from calibadv.rllib.connectors import MINIBATCHES
from calibadv.rllib.module import save_pretrained
from calibadv.rllib.tensors import to_tensors
from calibadv.rllib.totals import UpdateTotals

POLICY = "default_policy"


class PolicyLearner(TorchLearner):  # type: ignore[misc]
    """Clipped policy gradient with global token normalisation; the same update for 0, 1 and many learners."""

    def build(self) -> None:
        self._settings: LearnerSection = self.config.calibadv.learner
        self._total_updates = self.config.calibadv.run.steps * self.config.calibadv.updates_per_step
        self._updates_done = 0
        self._every_token_trains = self._settings.kl_coef > 0 or self._settings.entropy_coef > 0
        torch.set_num_threads(self._settings.threads)
        super().build()

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        settings = self._settings
        params = self._module[module_id].trainable_parameters()
        optimizer = torch.optim.AdamW(params, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=settings.lr)

    def _make_modules_ddp_if_necessary(self) -> None:
        """Nothing: gradients are summed by hand, so that ranks may have unequal numbers of micro-batches."""

    def update(
        self, training_data: TrainingData, *, num_minibatches: int, timesteps: Any = None, **_: Any
    ) -> dict[str, Any]:
        """One pass over the step's mini-batches: this rank's token sums and the state that all ranks share."""
        training_data.validate()
        training_data.solve_refs()
        batch = self._learner_connector(
            rl_module=self.module,
            batch={},
            episodes=training_data.episodes,
            shared_data={"num_minibatches": num_minibatches},
            metrics=self.metrics,
        )
        self._weights_seq_no += 1
        totals = UpdateTotals()
        for index, minibatch in enumerate(batch[MINIBATCHES]):
            self._update_minibatch(minibatch, totals, fresh=index == 0)
        return totals.as_dict()

    def _update_minibatch(self, minibatch: list[MicroBatch], totals: UpdateTotals, *, fresh: bool) -> None:
        optimizer = self.get_optimizer(POLICY)
        self._set_optimizer_lr(optimizer, self._cosine_lr())
        optimizer.zero_grad(set_to_none=True)
        num_tokens = self._sum_over_ranks(sum(len(micro.advantages_N) for micro in minibatch))
        if num_tokens == 0:  # on every rank: fewer rollouts than mini-batches
            return
        loss = 0.0
        for micro in minibatch:
            batch = to_tensors(micro, self._device)
            trains = self._every_token_trains or bool(micro.advantages_N.any())
            with torch.set_grad_enabled(trains):
                with self._autocast():
                    out = self._module[POLICY].forward_train(batch)
                loss_sum = self.compute_loss_for_module(module_id=POLICY, config=self.config, batch=batch, fwd_out=out)
            if trains:
                torch.autograd.backward(loss_sum / num_tokens)
            totals.add_tokens(batch, out, loss_sum, fresh=fresh)
            loss += float(loss_sum.detach())
        grad_norm = self._sum_gradients_and_clip()
        # Clamps stop a nan on its way to the gradient, so that the loss is looked at too.
        finite = math.isfinite(grad_norm) and math.isfinite(self._sum_over_ranks(loss))
        if finite:
            optimizer.step()
        totals.add_update(grad_norm, self._get_optimizer_lr(optimizer), skipped=not finite)
        self._updates_done += 1

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Tensor], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Sum over action tokens of the clipped surrogate, plus KL and entropy terms where they are switched on."""
        settings, weights_N = self._settings, None
        if settings.importance_cap is not None:
            weights_N = importance_weights(
                batch["old_logprobs_N"], batch["sampler_logprobs_N"], settings.importance_cap
            )
        surrogate = clipped_surrogate(
            fwd_out["logprobs_N"],
            batch["old_logprobs_N"],
            batch["advantages_N"],
            clip=settings.clip,
            weights_N=weights_N,
        )
        fwd_out["clipped_N"] = surrogate.clipped_N
        loss = surrogate.loss_sum
        if settings.kl_coef:
            fwd_out["kl_sum"] = low_variance_kl(fwd_out["logprobs_N"], fwd_out["reference_logprobs_N"])
            loss = loss + settings.kl_coef * fwd_out["kl_sum"]
        if settings.entropy_coef:
            loss = loss - settings.entropy_coef * fwd_out["entropy_N"].sum()
        return loss

    def _cosine_lr(self) -> float:
        progress = min(self._updates_done / max(self._total_updates, 1), 1.0)
        low, high = self._settings.lr_final, self._settings.lr
        return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._settings.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _sum_gradients_and_clip(self) -> float:
        """Global norm of the summed gradients, which are then clipped; not finite if any rank's gradient is not."""
        params = self._module[POLICY].trainable_parameters()
        for param in params:
            if param.grad is None:  # no row of this rank had credit
                param.grad = torch.zeros_like(param)
            if _several_ranks():
                distributed.all_reduce(param.grad)
        return float(torch.nn.utils.clip_grad_norm_(params, self._settings.grad_clip))

    def _sum_over_ranks(self, value: float) -> float:
        if not _several_ranks():
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self._device)
        distributed.all_reduce(total)
        return float(total)

    def compare_logprobs(self, shards: list[GroupShard]) -> dict[str, Any]:
        """Totals of a forward pass over the groups, which the current weights must have sampled. Trains nothing."""
        totals = UpdateTotals()
        rows = [
            to_row(trajectory, np.zeros(trajectory.num_actions, dtype=np.float32))
            for shard in shards
            for trajectory in shard.group.trajectories
        ]
        with torch.no_grad():
            for micro in micro_batches(rows, self._settings.token_budget):
                batch = to_tensors(micro, self._device)
                out = self._module[POLICY].forward_train(batch)
                loss = self.compute_loss_for_module(module_id=POLICY, config=self.config, batch=batch, fwd_out=out)
                totals.add_tokens(batch, out, loss, fresh=True)
        return totals.as_dict()

    def pack_weights(self, dtype: torch.dtype) -> PackedWeights | None:
        """The policy's weights by their Hugging Face names, tied ones once, in the object store; None off rank 0."""
        if _rank() != 0:
            return None
        return chunk_state(self._module[POLICY].language_model.named_parameters(), dtype=dtype)

    def save_model(self, folder: str) -> None:
        """Writes the policy as a folder that `from_pretrained` and vLLM open. Rank 0 writes, all ranks agree."""
        if _rank() == 0:
            dtype = getattr(torch, self.config.calibadv.model.dtype)
            source = str(self.config.stream.inputs.model)
            save_pretrained(self._module[POLICY].language_model, source, Path(folder), dtype)


def _rank() -> int:
    return distributed.get_rank() if _several_ranks() else 0


def _several_ranks() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
