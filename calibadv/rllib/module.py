"""RLModule around a policy: log-probs, entropies and values of the action tokens, all in the learner's dtype."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn
from transformers import PreTrainedModel

from calibadv.losses import TokenStats
from calibadv.rllib.fused import fuse
from calibadv.rllib.lora import Lora, adapters_off, add_adapters
from calibadv.rllib.packed_attention import packs_alike
from calibadv.rllib.policy import (
    action_hidden,
    frozen_copy,
    load_causal_lm,
    packs_rows,
    pad_rows,
    policy_pass,
    value_head,
)
from calibadv.rllib.probe import alike, probe_logprobs

log = logging.getLogger(__name__)

OUTPUTS = frozenset({"logprobs_N", "values_N", "reference_logprobs_N"})  # entropies come with the log-probs


class CausalLMModule(TorchRLModule):  # type: ignore[misc]
    """The policy in the learner, and its critic where the method has one.

    `model_config`: path, dtype (of every pass: "bfloat16" is autocast), gradient_checkpointing, keep_reference (for KL
    terms), critic ("model", "head" or None), pack_rows, lora (None: all weights are trained), temperature (of the
    log-probs that train: that of the rollouts).
    """

    def setup(self) -> None:
        """Loads fp32 master weights. Called by RLlib once, on every learner."""
        settings: dict[str, Any] = self.model_config
        self.language_model = load_causal_lm(settings["path"], pack=settings.get("pack_rows", True))
        lora: Lora | None = settings.get("lora")
        if lora is not None:
            add_adapters(self.language_model, lora)
        self.lora_scale = lora.scale if lora is not None else 0.0
        if settings.get("gradient_checkpointing"):
            self.language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self.language_model.train()  # Hugging Face checkpoints in training mode only
        self.keep_reference = bool(settings.get("keep_reference"))
        # Adapters leave the base as it is: without them it is the reference.
        self.reference = frozen_copy(self.language_model) if self.keep_reference and lora is None else None
        kind = settings.get("critic")
        self.value_trunk = copy.deepcopy(self.language_model.base_model) if kind == "model" else None
        self.value_head = value_head(self.language_model.config.hidden_size) if kind else None
        # Replaced where learners share the weights; `collective`: then all must make equal numbers of passes.
        self.policy_pass: Callable[[dict[str, Tensor], float], tuple[Tensor, TokenStats]]
        self.policy_pass = partial(policy_pass, self.language_model)
        self.collective = False
        self._autocast = settings.get("dtype") == "bfloat16"
        self._temperature = float(settings.get("temperature", 1.0))

    def _forward_train(self, batch: dict[str, Tensor], wanted: Set[str] = OUTPUTS, **_: Any) -> dict[str, Tensor]:
        # Here and not at the callers: log-probs and values are then those of the network that trains, whoever asks.
        with torch.autocast(batch["ids_BT"].device.type, torch.bfloat16, enabled=self._autocast):
            return self._outputs(batch, wanted)

    def _outputs(self, batch: dict[str, Tensor], wanted: Set[str]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        if self.keep_reference and "reference_logprobs_N" in wanted:
            # First, so that no other pass comes between the policy's and its backward pass.
            out["reference_logprobs_N"] = self._reference_logprobs(batch)
        head, trunk = self.value_head if "values_N" in wanted else None, self.value_trunk
        if "logprobs_N" in wanted or (head is not None and trunk is None):
            hidden_NH, stats = self.policy_pass(batch, self._temperature)
            out |= {"logprobs_N": stats.logprobs_N, "entropy_N": stats.entropy_N}
        if head is not None:
            features_NH = hidden_NH.detach() if trunk is None else action_hidden(trunk, batch)
            with torch.autocast(features_NH.device.type, enabled=False):  # bf16 has three digits
                out["values_N"] = head(features_NH.float())[:, 0]
        return out

    def _reference_logprobs(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return policy_pass(self.reference, batch, self._temperature)[1].logprobs_N
            with adapters_off(self.language_model):
                return self.policy_pass(batch, self._temperature)[1].logprobs_N

    @contextmanager
    def of_temperature(self, temperature: float) -> Iterator[None]:
        """Log-probs and entropies of another temperature than that of training rollouts."""
        usual, self._temperature = self._temperature, temperature
        try:
            yield
        finally:
            self._temperature = usual

    @property
    def packs_rows(self) -> bool:
        """Whether its passes take packed micro-batches."""
        return packs_rows(self.language_model)

    def fuse(self, tolerance: float, kernels: Callable[[PreTrainedModel], None] = fuse) -> None:
        """Fused `kernels` from here on.

        ValueError where they cannot be had, or change log-probs of a small batch by more than `alike` allows.
        """
        before_N = probe_logprobs(self.language_model, self._logprobs_there_and_back)
        for model in self._models:
            kernels(model)
        after_N = probe_logprobs(self.language_model, self._logprobs_there_and_back)
        if not alike(before_N, after_N, tolerance):
            change_N = np.abs(after_N - before_N)
            raise ValueError(
                f"learner.fused changes a log-prob by {change_N.max():g} nats, {change_N.mean():g} in the mean: "
                f"expected at most {tolerance:g} and {tolerance / 10:g}; set it to false"
            )

    def check_packing(self, tolerance: float) -> None:
        """Pads the rows from here on where packed ones differ by more than `alike` allows, or cannot be had.

        For the device and dtype that train: the check at load was in fp32 on a CPU.
        """
        try:
            alike = packs_alike(self.language_model, self._logprobs_there_and_back, tolerance)
        except (RuntimeError, NotImplementedError, ImportError) as error:  # a kernel that this device does not have
            log.warning("packed rows cannot be had here: %s", error)
            alike = False
        if not alike:
            for model in self._models:
                pad_rows(model)

    def _logprobs_there_and_back(self, batch: dict[str, Tensor]) -> Tensor:
        """Log-probs [N], after a backward pass too: its kernel is another one, which may be missing or wrong."""
        first = self.trainable_parameters()[0]  # below all attention
        with torch.enable_grad():
            logprobs_N: Tensor = self.forward_train(batch)["logprobs_N"]
            torch.autograd.grad(logprobs_N.sum(), first)
        return logprobs_N.detach()

    @property
    def _models(self) -> list[PreTrainedModel]:
        """The policy, its reference and a critic's trunk, as far as there are any."""
        return [model for model in (self.language_model, self.reference, self.value_trunk) if model is not None]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What the policy's optimizer updates: the language model, or its adapters alone; never the reference."""
        return [parameter for parameter in self.language_model.parameters() if parameter.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """What the critic's optimizer updates; empty without a critic."""
        return [p for part in (self.value_trunk, self.value_head) if part is not None for p in part.parameters()]

    def get_state(self, *args: Any, inference_only: bool = False, **kwargs: Any) -> dict[str, Any]:
        """RLlib asks rank 0 for an inference state at start-up; engines get theirs from `publish`, so it is empty."""
        return {} if inference_only else dict(super().get_state(*args, **kwargs))
