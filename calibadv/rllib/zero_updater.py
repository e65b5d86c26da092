"""The updater of learners that share one state between them: DeepSpeed's ZeRO around our own update.

DeepSpeed averages gradients over ranks, and a mini-batch's loss is a sum over them: each part is multiplied by their
number.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from calibadv.checkpoints.state_files import Tree
from calibadv.config import LearnerConfig
from calibadv.losses import TokenStats, token_stats
from calibadv.micro_batches import MicroBatch, padding
from calibadv.rllib.head import head_of
from calibadv.rllib.lora import merged
from calibadv.rllib.module import CausalLMModule
from calibadv.rllib.policy import action_hidden
from calibadv.rllib.ranks import most_of_ranks
from calibadv.rllib.updater import Update
from calibadv.rllib.zero import check_layout, deepspeed_config, layer_groups, layout


class ZeroUpdater:
    """An `Updater` of the policy alone. Ranks make equal numbers of backward passes; in stage 3 of all passes."""

    def __init__(self, module: CausalLMModule, settings: LearnerConfig, device: torch.device) -> None:
        self._model, self._stage, self._device = module.language_model, settings.zero, device
        self._lora_scale, self._half = module.lora_scale, settings.weights == "bfloat16"
        self._deepspeed = _deepspeed(device)
        optimizer = torch.optim.AdamW(
            module.trainable_parameters(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,  # without a row of temporaries; on a CPU too, so that what is tested there is a GPU's
        )
        config = deepspeed_config(
            self._stage,
            grad_clip=settings.grad_clip,
            hidden_size=self._model.config.hidden_size,
            half=self._half,
        )
        with _fp32_buffers(self._model):
            self._engine, *_ = self._deepspeed.initialize(
                model=_Policy(self._model, device, cache_casts=self._stage < 3),
                optimizer=optimizer,
                config=config,
                dist_init_required=False,
            )
        module.policy_pass = self._policy_pass
        module.collective = self._stage == 3

    def passes(
        self, minibatch: Sequence[MicroBatch], trains: Callable[[MicroBatch], bool]
    ) -> Iterator[tuple[MicroBatch, bool]]:
        # What trains comes first, and what would not has a gradient of zero: a few more backward passes are exact.
        trained, total = most_of_ranks([sum(map(trains, minibatch)), len(minibatch)], self._device)
        trained = max(trained, 1)
        total = max(total if self._stage == 3 else len(minibatch), trained)
        for index in range(total):
            if index < trained:
                self._engine.set_gradient_accumulation_boundary(index == trained - 1)
            yield minibatch[index] if index < len(minibatch) else padding(), index < trained

    def backward(self, part: Tensor) -> None:
        self._engine.backward(part * distributed.get_world_size())

    def step(self, lrs: Mapping[str, float], *, finite: bool) -> Update:
        # A rate of 0 would still move the moments; the policy's is 0 beside a critic alone, which is refused here.
        optimizer = self._engine.optimizer
        for group in optimizer.param_groups:
            group["lr"] = lrs["policy"]
        if not finite:  # DeepSpeed looks at the gradient alone, and drops the step where that is not finite
            for gradient in chain.from_iterable(optimizer.averaged_gradients.values()):
                gradient.fill_(math.nan)
        self._engine.step()
        made = bool(self._engine.was_step_applied())
        return Update({"policy": float(self._engine.get_global_grad_norm()) if made else math.inf}, made)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        weights = dict(self._model.named_parameters())
        if self._stage < 3:
            yield from merged(weights, self._lora_scale)
            return
        for group in layer_groups(weights):
            with self._deepspeed.zero.GatheredParameters([weights[name] for name in group]):
                # The parameters themselves: they are empty afterwards, whoever still holds them.
                yield from merged({name: weights[name] for name in group}, self._lora_scale)

    def shared_state(self) -> Tree:
        return {"zero": self._layout()}

    def own_state(self) -> Tree:
        state = self._engine.optimizer.optimizer.state
        return {
            "weights": [flat.detach() for flat in self._flat()],
            "moments": [dict(state[flat]) if flat in state else {} for flat in self._flat()],
        }

    def load_state(self, shared: Tree, own: Tree | None) -> None:
        check_layout(shared.get("zero"), self._layout())
        assert own is not None, "as many learners wrote the state"
        if [flat.shape for flat in self._flat()] != [flat.shape for flat in own["weights"]]:
            raise ValueError("the state is of another model than this run's")
        optimizer = self._engine.optimizer
        with torch.no_grad():
            for flat, weights, moments in zip(self._flat(), own["weights"], own["moments"], strict=True):
                flat.copy_(weights)
                optimizer.optimizer.state.pop(flat, None)  # before its successor is made: there may be no room for both
                optimizer.optimizer.state[flat] = taken_up(moments, flat.device)
        if self._stage < 3:
            optimizer.update_lp_params()
            return
        optimizer.checkpoint_event_prologue()
        for group in range(len(self._flat())):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer.checkpoint_event_epilogue()

    def _flat(self) -> list[Tensor]:
        """This rank's share of the weights, as AdamW steps it."""
        optimizer = self._engine.optimizer
        flat = optimizer.single_partition_of_fp32_groups if self._stage < 3 else optimizer.fp32_partitioned_groups_flat
        return list(flat)

    def _layout(self) -> Tree:
        return layout(self._stage, distributed.get_world_size())

    def _policy_pass(self, batch: dict[str, Tensor], temperature: float) -> tuple[Tensor, TokenStats]:
        autocast = torch.is_autocast_enabled(self._device.type) and not self._half
        # DeepSpeed has an autocast of its own, and turns off one that it meets outside.
        with torch.autocast(self._device.type, enabled=False):
            hidden_NH, logprobs_N, entropy_N = self._engine(batch, autocast, temperature)
        return hidden_NH, TokenStats(logprobs_N, entropy_N)


def taken_up(moments: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copies of a fused AdamW's moments and of its count of steps, which is where they are."""
    return {name: tensor.to(device, copy=True) for name, tensor in moments.items()}


class _Policy(nn.Module):
    """`policy_pass` as modules, which DeepSpeed hooks: it gathers weights for the module whose pass needs them."""

    def __init__(self, model: PreTrainedModel, device: torch.device, *, cache_casts: bool) -> None:
        super().__init__()
        self.language_model = model
        self.head = _Head(model)
        self._device_type, self._cache_casts = device.type, cache_casts

    def forward(self, batch: dict[str, Tensor], autocast: bool, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        with self._autocast() if autocast else contextlib.nullcontext():
            hidden_NH = action_hidden(self.language_model.base_model, batch)
            logprobs_N, entropy_N = self.head(hidden_NH, batch["targets_N"], temperature)
        return hidden_NH, logprobs_N, entropy_N

    def _autocast(self) -> torch.autocast:
        # A kept bf16 copy of a layer would outlive the layer, which stage 3 gives back after its pass.
        return torch.autocast(self._device_type, dtype=torch.bfloat16, cache_enabled=self._cache_casts)


class _Head(nn.Module):
    """Log-probs and entropies [N] from hidden states; the head's weight is needed here and not before."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple: its layers are the language model's modules and must have one parent

    def forward(self, hidden_NH: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        stats = token_stats(hidden_NH, head_of(self._model[0]).at(temperature), targets_N)
        return stats.logprobs_N, stats.entropy_N


@contextlib.contextmanager
def _fp32_buffers(model: nn.Module) -> Iterator[None]:
    """DeepSpeed casts buffers as it does weights, and the frequencies of rotary embeddings need their digits."""
    kept = [
        (part, name, buffer)
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    yield
    for part, name, buffer in kept:
        setattr(part, name, buffer)


def _deepspeed(device: torch.device) -> Any:
    """The package, told where it runs. RuntimeError in words if it is not installed."""
    os.environ |= {
        "DS_ACCELERATOR": device.type,
        "RANK": str(distributed.get_rank()),
        "WORLD_SIZE": str(distributed.get_world_size()),
        "LOCAL_RANK": str(device.index or 0),
    }
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise RuntimeError(
            f"learner.zero needs DeepSpeed ({error}): pip install 'calibadv[gpu]', or set it to 0"
        ) from None
    if device.type == "cpu":  # it would compile a kernel for inference, which takes minutes and a compiler
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)  # it calls them by their old names
    return deepspeed
