"""A learner of one process: the project's rows, losses and divisors over the laboratory's policy.

What `rllib.learner` does with ranks, adapters and autocast is not here; what decides an update is the same code.
N action tokens, B rows, T tokens, H hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calibadv.advantages.gae import moments, whiten
from calibadv.batching import Row, shard_groups
from calibadv.config import LearnerConfig
from calibadv.lab.policy import HIDDEN, Policy
from calibadv.losses import Head, token_stats
from calibadv.methods.keep import kept_groups, no_credit
from calibadv.methods.method import Critic, Method
from calibadv.methods.rows import credit_rows, critic_rewards, critic_row, step_facts
from calibadv.micro_batches import micro_batches
from calibadv.rllib.objective import count, loss_terms, to_tensors, total
from calibadv.rllib.ranks import sum_gradients
from calibadv.rllib.signal import NO_SIGNAL, last_signal
from calibadv.rllib.totals import UpdateTotals, step_metrics
from calibadv.types import Credit, FloatArray, Group

CPU = torch.device("cpu")
TOKEN_BUDGET = 4096  # padded tokens a micro-batch: about what a core's cache holds


@dataclass(frozen=True, slots=True)
class Updated:
    """What became of a step."""

    metrics: dict[str, float]  # by path
    credit: list[Credit]  # that trained, of each group


class LabLearner:
    """Holds the policy, a critic where the method has one, the reference where KL is on, and their AdamW moments."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        settings: LearnerConfig,
        *,
        logprobs_at: float = 1.0,
        idle_updates: bool = True,
    ) -> None:
        self.policy, self._method, self._settings = policy, method, settings
        self._logprobs_at = logprobs_at  # temperature
        self._idle_updates = idle_updates  # whether a mini-batch without any credit is an update
        self._value: _ValueModel | None = None
        compares = method.needs_reference(settings.kl_coef)
        self._reference = copy.deepcopy(policy).requires_grad_(False) if compares else None
        self._optimizers = {"policy": _adamw(policy, settings.lr, settings)}
        if (critic := method.critic) is not None:
            self._value = _ValueModel(policy, critic)
            self._optimizers["critic"] = _adamw(self._value, critic.lr or settings.lr, settings)
        self._every_row_trains = method.trains_every_row(settings.kl_coef, settings.entropy_coef)

    def update(self, groups: Sequence[Group], *, updates: int, seed: int, passes: int = 1) -> Updated:
        """`passes` over the groups, each in `updates` mini-batches of its own draw by `seed`."""
        kept = kept_groups(groups, self._method)
        facts = step_facts(kept)
        (shards,) = shard_groups(kept, num_minibatches=updates, num_shards=1, seed=seed, passes=passes)
        rows = [row for shard in shards for row in credit_rows(shard, self._method, facts)]
        critic, recompute = self._method.critic, self._settings.old_logprobs == "recompute"
        outputs = self._outputs(rows) if recompute or critic is not None else []
        if recompute:
            rows = [replace(row, old_logprobs_N=out["logprobs_N"]) for row, out in zip(rows, outputs, strict=True)]
        if critic is not None:
            rewards = critic_rewards(shards, critic)
            given = zip(rows, rewards, outputs, strict=True)
            rows = [critic_row(row, rewards_N, out, critic) for row, rewards_N, out in given]
            if critic.whiten:
                known = moments([row.advantages_N for row in rows])
                rows = [replace(row, advantages_N=whiten(row.advantages_N, *known)) for row in rows]
        totals = UpdateTotals()
        for index in range(updates * passes):
            drawn = [row for row in rows if index in (row.minibatch, *row.later_minibatches)]
            self._update(drawn, totals, fresh=index == 0)
        metrics = step_metrics([totals.as_dict()])
        metrics.pop("policy/entropy", None)  # of the rows with credit alone; the sampler knows that of all
        trained = iter(rows)
        credit = {s.group.question.id: [_trained(next(trained)) for _ in s.minibatch_G] for s in shards}
        if self._method.keep is not None:
            metrics["learner/kept_share"] = len(kept) / len(groups)
        return Updated(metrics, [credit.get(group.question.id) or no_credit(group) for group in groups])

    def _update(self, rows: list[Row], totals: UpdateTotals, *, fresh: bool) -> None:
        # Rows without credit have no gradient; they count in the divisor, and need no pass.
        trained = [row for row in rows if self._every_row_trains or row.advantages_N.any()]
        divisors = count(micro_batches(rows, TOKEN_BUDGET), CPU, self._settings)
        if not rows or not (trained or self._idle_updates):
            return
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for micro in micro_batches(trained, TOKEN_BUDGET):
            batch = to_tensors(micro, CPU)
            out = self._forward(batch)
            terms = loss_terms(batch, out, divisors, self._settings, self._method)
            part = total(terms)
            torch.autograd.backward(part)
            loss += float(part.detach())
            totals.add_tokens(batch, out, fresh=fresh)
            totals.add_losses({name: float(term.detach()) for name, term in terms.items()})
        for optimizer in self._optimizers.values():
            sum_gradients(optimizer.param_groups[0]["params"])  # without any credit 0
        norms = {
            name: float(nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self._settings.grad_clip))
            for name, optimizer in self._optimizers.items()
        }
        # Clamps stop a nan on its way to the gradient, so that the loss is looked at too.
        made = all(map(np.isfinite, [loss, *norms.values()]))
        if made:
            for optimizer in self._optimizers.values():
                optimizer.step()
        signal = last_signal(self._optimizers["policy"]) if made else NO_SIGNAL
        totals.add_update(norms, self._settings.lr, signal, skipped=not made)

    def _forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden_NH = action_hidden(self.policy, batch)
        stats = token_stats(hidden_NH, self._head(self.policy), batch["targets_N"])
        out = {"logprobs_N": stats.logprobs_N, "entropy_N": stats.entropy_N}
        if self._reference is not None:
            with torch.no_grad():
                reference = token_stats(
                    action_hidden(self._reference, batch),
                    self._head(self._reference),
                    batch["targets_N"],
                )
            out["reference_logprobs_N"] = reference.logprobs_N
        if self._value is not None:
            out["values_N"] = self._value(batch, hidden_NH)
        return out

    def _head(self, policy: Policy) -> Head:
        return Head(policy.embed.weight).at(self._logprobs_at)

    @torch.no_grad()
    def _outputs(self, rows: list[Row]) -> list[dict[str, FloatArray]]:
        """Every [N] output of a forward pass, a dict a row, in the rows' order."""
        outputs: list[dict[str, FloatArray]] = [{} for _ in rows]
        for micro in micro_batches(rows, TOKEN_BUDGET):
            for name, flat_N in self._forward(to_tensors(micro, CPU)).items():
                for index, part in zip(micro.rows, micro.by_row(flat_N.numpy()), strict=True):
                    outputs[index][name] = part
        return outputs

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        return {
            "policy": self.policy.state_dict(),
            "value": self._value.state_dict() if self._value is not None else {},
            "reference": self._reference.state_dict() if self._reference is not None else {},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on exactly where `state` was taken."""
        self.policy.load_state_dict(state["policy"])
        if self._value is not None:
            self._value.load_state_dict(state["value"])
        if self._reference is not None:
            self._reference.load_state_dict(state["reference"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


class _ValueModel(nn.Module):
    """A critic: a copy of the policy with a head, or a head on the policy's own features, which it does not change."""

    def __init__(self, policy: Policy, critic: Critic) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(policy) if critic.kind == "model" else None
        self.head = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: dict[str, Tensor], policy_hidden_NH: Tensor) -> Tensor:
        """The value [N] of each action token's state."""
        features_NH = policy_hidden_NH.detach() if self.trunk is None else action_hidden(self.trunk, batch)
        values_N: Tensor = self.head(features_NH)[:, 0]
        return values_N


def action_hidden(policy: Policy, batch: dict[str, Tensor]) -> Tensor:
    """Hidden states [N, H] that predict a micro-batch's action tokens, row by row."""
    hidden_NH: Tensor = policy(batch["ids_BT"]).flatten(0, 1)[batch["predicts_N"]]
    return hidden_NH


def _adamw(model: nn.Module, lr: float, settings: LearnerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), lr=lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def _trained(row: Row) -> FloatArray:
    return row.advantages_N * row.weights_N
