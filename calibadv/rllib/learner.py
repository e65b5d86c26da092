"""TorchLearner of a policy gradient over calibrated advantages.

An update is one optimizer step on one mini-batch of rollouts: its micro-batches are accumulated, gradients are summed
over the ranks, and the loss is the mean over *all* action tokens of the mini-batch, wherever they were trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from torch import Tensor

from calibadv.batching import GroupShard, to_row
from calibadv.checkpoints.state_files import Tree
from calibadv.cluster.packed import PackedWeights
from calibadv.config import LearnerConfig
from calibadv.methods.method import Method, StepFacts
from calibadv.micro_batches import MicroBatch, micro_batches
from calibadv.rllib.checkpoint_names import as_in_checkpoint
from calibadv.rllib.connectors import CREDIT, FACTS, MINIBATCHES, NUM_MINIBATCHES
from calibadv.rllib.learner_state import random_state, set_random_state
from calibadv.rllib.lora import lora_of
from calibadv.rllib.lr_schedule import critic_rate, policy_rate
from calibadv.rllib.model_folder import write_model_folder
from calibadv.rllib.module import CausalLMModule
from calibadv.rllib.objective import count, loss_terms, to_tensors, total
from calibadv.rllib.publish import copy_of_learner, pack_on_ranks, store_of_learner
from calibadv.rllib.ranks import on_rank_zero, rank, several_ranks, sum_over_ranks
from calibadv.rllib.totals import UpdateTotals
from calibadv.rllib.update_progress import UpdateProgress, to_coordinator
from calibadv.rllib.updater import PlainUpdater, Updater

_TRIAL_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.5}  # nats: of the largest token, between two orders of sums
CRITIC = "critic"  # its optimizer, beside the one that is called "policy"


class PolicyLearner(TorchLearner):  # type: ignore[misc]
    """Clipped policy gradient with global token normalisation; the same update for 0, 1 and many learners."""

    def build(self) -> None:
        self._settings: LearnerConfig = self.config.calibadv.learner
        self._method: Method = self.config.method.value
        self._updates_done = 0
        self._lr_scale = 1.0
        critic = self._method.critic
        self._critic_lr = (critic.lr if critic else None) or self._settings.lr
        # What the loss is of. A reference in the policy's own micro-batch: until an update they are equal to the bit.
        self._wanted = {"logprobs_N", "values_N"} | ({"reference_logprobs_N"} if self._settings.kl_coef else set())
        self._every_row_trains = self._method.trains_every_row(self._settings.kl_coef, self._settings.entropy_coef)
        torch.set_num_threads(self._settings.threads)
        self._shares = self._settings.zero > 0 and several_ranks()  # one process has no one to share with
        super().build()
        tolerance = _TRIAL_DIFFERENCE[self._settings.dtype]
        if self._settings.fused:
            self.policy.fuse(tolerance)
        if self._device.type != "cpu" and self.policy.packs_rows:
            self.policy.check_packing(tolerance)
        self._updater = self._make_updater()
        self._copy = copy_of_learner(self.config.calibadv, self._device)
        self._progress = UpdateProgress(to_coordinator(self.config.coordinator if rank() == 0 else None))

    def _make_module(self) -> Any:
        spec = self._module_spec.rl_module_specs[DEFAULT_MODULE_ID]
        spec.model_config = {**spec.model_config, "lora": lora_of(self._settings, self.config.calibadv.run.seed)}
        return super()._make_module()

    @property
    def rank(self) -> int:
        """Its number among the learners."""
        return rank()

    @property
    def policy(self) -> CausalLMModule:
        """The module: policy, reference and critic."""
        module: CausalLMModule = self._module[DEFAULT_MODULE_ID]
        return module

    def _make_updater(self) -> Updater:
        if self._shares:
            from calibadv.rllib.zero_updater import ZeroUpdater

            return ZeroUpdater(self.policy, self._settings, self._device)
        names = ["policy", CRITIC] if self._method.critic is not None else ["policy"]
        optimizers = {name: self.get_optimizer(DEFAULT_MODULE_ID, name) for name in names}
        return PlainUpdater(self.policy, optimizers, self._settings.grad_clip)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        if self._shares:  # the updater has its own, which RLlib does not know how to use
            return
        settings, module = self._settings, self._module[module_id]
        parts = {"policy": (module.trainable_parameters(), settings.lr)}
        if self._method.critic is not None:
            parts[CRITIC] = (module.critic_parameters(), self._critic_lr)
        for name, (params, lr) in parts.items():
            optimizer = torch.optim.AdamW(
                params,
                lr=lr,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
                fused=self._device.type == "cuda",  # without a row of temporaries as large as the weights
            )
            self.register_optimizer(
                module_id=module_id, optimizer_name=name, optimizer=optimizer, params=params, lr_or_lr_schedule=lr
            )

    def _make_modules_ddp_if_necessary(self) -> None:
        """Nothing: the updater sums the gradients, so that ranks may have unequal numbers of micro-batches."""

    def update(
        self,
        training_data: TrainingData,
        *,
        num_minibatches: int,
        facts: StepFacts | None = None,
        timesteps: Any = None,
        **_: Any,
    ) -> dict[str, Any]:
        """An update for each of the step's mini-batches, all passes: this rank's token sums and what ranks share."""
        training_data.validate()
        training_data.solve_refs()
        episodes: list[GroupShard] = training_data.episodes
        batch = self._learner_connector(
            rl_module=self.module,
            batch={},
            episodes=episodes,
            shared_data={NUM_MINIBATCHES: num_minibatches, FACTS: facts},
            metrics=self.metrics,
        )
        self._weights_seq_no += 1
        rows = iter(batch[CREDIT])
        totals = UpdateTotals(credit={s.group.question.id: {i: next(rows) for i in s.trained} for s in episodes})
        self._progress.begin(sum(len(minibatch) for minibatch in batch[MINIBATCHES]))
        for index, minibatch in enumerate(batch[MINIBATCHES]):
            self._update_minibatch(minibatch, totals, fresh=index == 0)
        return totals.as_dict()

    def _update_minibatch(self, minibatch: list[MicroBatch], totals: UpdateTotals, *, fresh: bool) -> None:
        config, done = self.config.calibadv, self._updates_done
        self._updates_done += 1  # with or without rollouts: the schedule ends with the run
        divisors = count(minibatch, self._device, self._settings)
        if divisors.actions == 0:  # on every rank: fewer rollouts than mini-batches
            return
        loss = 0.0
        for micro, trains in self._updater.passes(minibatch, self._trains):
            batch = to_tensors(micro, self._device)
            with torch.set_grad_enabled(trains):
                out = self.policy.forward_train(batch, wanted=self._wanted)
                terms = loss_terms(batch, out, divisors, self._settings, self._method)
                part = total(terms)
            if trains:
                self._updater.backward(part)
            self._progress.step()
            totals.add_tokens(batch, out, fresh=fresh)
            totals.add_losses({name: float(term.detach()) for name, term in terms.items()})
            loss += float(part.detach())
        # Clamps stop a nan on its way to the gradient, so that the loss is looked at too.
        (loss,) = sum_over_ranks([loss], self._device)
        rates = {"policy": policy_rate(config, done), CRITIC: critic_rate(config, self._critic_lr, done)}
        lrs = {name: self._lr_scale * rate for name, rate in rates.items()}
        update = self._updater.step(lrs, finite=math.isfinite(loss))
        totals.add_update(update.grad_norms, lrs["policy"], update.signal, skipped=not update.made)

    def _trains(self, micro: MicroBatch) -> bool:
        """Whether its loss has a gradient: without credit the surrogate has none, and it may be the whole loss."""
        return self._every_row_trains or bool(micro.tokens["advantages_N"].any())

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Tensor], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """RLlib's update asks for it; `update` here is another one, whose loss is `loss_terms`."""
        raise NotImplementedError("the update is PolicyLearner's own")

    def compare_logprobs(self, shards: list[GroupShard]) -> dict[str, Any]:
        """Totals of a forward pass over greedy rollouts of the current weights, whose log-probs are of temperature 1.

        Trains nothing.
        """
        totals = UpdateTotals()
        rows = [
            to_row(trajectory, np.zeros(trajectory.num_actions, dtype=np.float32))
            for shard in shards
            for trajectory in shard.group.trajectories
        ]
        with torch.no_grad(), self.policy.of_temperature(1.0):
            for micro in micro_batches(rows, self._settings.token_budget, packed=self.policy.packs_rows):
                batch = to_tensors(micro, self._device)
                totals.add_tokens(batch, self.policy.forward_train(batch, wanted={"logprobs_N"}), fresh=True)
        return totals.as_dict()

    def pack_weights(self, dtype: torch.dtype) -> PackedWeights | None:
        """The policy's weights by the names that the engine knows, tied ones once; see `pack_on_ranks`.

        Those are the checkpoint's for vLLM, and those of transformers for the torch engine.
        """
        store = store_of_learner(self.config.calibadv)
        return pack_on_ranks(self.rank, self.published_weights(), dtype, self._copy, store)

    def published_weights(self) -> Iterator[tuple[str, Tensor]]:
        """What `pack_weights` packs, one after the other."""
        vllm = self.config.calibadv.rollout.engine == "vllm"
        return self._checkpoint_weights() if vllm else self._updater.named_weights()

    def _checkpoint_weights(self) -> Iterator[tuple[str, Tensor]]:
        return as_in_checkpoint(self.policy.language_model, self._updater.named_weights())

    def save_model(self, folder: str) -> None:
        """Writes the policy as a folder that `from_pretrained` and vLLM open. Rank 0 writes; all ranks gather."""
        dtype = getattr(torch, self.config.calibadv.model.dtype)
        source, model, path = self.config.model_folder, self.policy.language_model, Path(folder)
        weights = self._checkpoint_weights()

        def write(given: Iterator[tuple[str, Tensor]]) -> None:
            if folder:
                write_model_folder(given, model, source, path, dtype)

        on_rank_zero(self.rank, weights, write)

    def all_ranks(self, ready: bool) -> bool:
        """Whether it is so on every rank. Collective."""
        return sum_over_ranks([not ready], self._device) == [0]

    def shared_state(self) -> Tree:
        """What every learner holds alike: the place in the learning rate's schedule, and what it holds in full."""
        return {**self._updater.shared_state(), "updates_done": self._updates_done, "lr_scale": self._lr_scale}

    def own_state(self) -> Tree:
        """What only this rank has: its random generators, and its share of what is shared out."""
        return {**self._updater.own_state(), "random": random_state()}

    def load_state(self, shared: Tree, own: Tree | None) -> None:
        """Goes on exactly where the state was taken. A rank that there was not then (`own` None) starts its generators
        anew. ValueError if the state is of another model or method, or shared out between other learners."""
        self._updater.load_state(shared, own)
        self._updates_done, self._lr_scale = int(shared["updates_done"]), float(shared["lr_scale"])
        if own is not None:
            set_random_state(own["random"])

    def roll_back(self, shared: Tree, own: Tree | None, lr_scale: float) -> None:
        """Goes back to a state's weights and optimizers, with every later learning rate times `lr_scale`.

        The schedule goes on from where it is: the updates that are undone were made.
        """
        self._updater.load_state(shared, own)
        self._lr_scale *= lr_scale
