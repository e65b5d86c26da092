"""RLModule around any Hugging Face causal language model: log-probs, entropies and values of the action tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from calibadv.losses import TokenStats, token_stats
from calibadv.rllib.head import check_own_logits, head_of
from calibadv.rllib.lora import Lora, adapters_off, add_adapters


class CausalLMModule(TorchRLModule):  # type: ignore[misc]
    """The policy in the learner, and its critic where the method has one.

    `model_config`: path, dtype (of every pass: "bfloat16" is autocast), gradient_checkpointing, keep_reference (for KL
    terms), critic ("model", "head" or None), lora (None: all weights are trained).
    """

    def setup(self) -> None:
        """Loads fp32 master weights. Called by RLlib once, on every learner."""
        settings: dict[str, Any] = self.model_config
        self.language_model = load_causal_lm(settings["path"])
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
        self.policy_pass: Callable[[dict[str, Tensor]], tuple[Tensor, TokenStats]]
        self.policy_pass = partial(policy_pass, self.language_model)
        self.collective = False
        self._autocast = settings.get("dtype") == "bfloat16"

    def _forward_train(self, batch: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        # Here and not at the callers: log-probs and values are then those of the network that trains, whoever asks.
        with torch.autocast(batch["ids_BT"].device.type, torch.bfloat16, enabled=self._autocast):
            return self._outputs(batch)

    def _outputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        # First, so that no other pass comes between the policy's and its backward pass.
        reference = {"reference_logprobs_N": self._reference_logprobs(batch)} if self.keep_reference else {}
        hidden_NH, stats = self.policy_pass(batch)
        out = {"logprobs_N": stats.logprobs_N, "entropy_N": stats.entropy_N, **reference}
        if self.value_head is not None:
            trunk = self.value_trunk
            features_NH = hidden_NH.detach() if trunk is None else action_hidden(trunk, batch)
            with torch.autocast(features_NH.device.type, enabled=False):  # bf16 has three digits
                out["values_N"] = self.value_head(features_NH.float())[:, 0]
        return out

    def _reference_logprobs(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return policy_pass(self.reference, batch)[1].logprobs_N
            with adapters_off(self.language_model):
                return self.policy_pass(batch)[1].logprobs_N

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What the policy's optimizer updates: the language model, or its adapters alone; never the reference."""
        return [parameter for parameter in self.language_model.parameters() if parameter.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """What the critic's optimizer updates; empty without a critic."""
        return [p for part in (self.value_trunk, self.value_head) if part is not None for p in part.parameters()]

    def get_state(self, *args: Any, inference_only: bool = False, **kwargs: Any) -> dict[str, Any]:
        """RLlib asks rank 0 for an inference state at start-up; engines get theirs from `publish`, so it is empty."""
        return {} if inference_only else dict(super().get_state(*args, **kwargs))


def load_causal_lm(path: str) -> PreTrainedModel:
    """The causal LM in `path` (a folder or a hub name) in fp32, without dropout and router noise.

    ValueError for a missing one, and for one whose own log-probs are not those of `policy_pass`.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        _without_noise(config)
        model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
        check_own_logits(model, lambda batch: policy_pass(model, batch)[1].logprobs_N)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot train the model at {path!r}: {error}") from None
    return model


def _without_noise(config: PreTrainedConfig) -> None:
    """Sets every dropout and jitter to 0, in place: the ratio compares with an engine that has none."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _without_noise(value)
        elif isinstance(value, float) and ("drop" in name or "jitter" in name):
            setattr(config, name, 0.0)


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that never trains."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def value_head(hidden_size: int) -> nn.Linear:
    """A linear map to one value, which says 0 everywhere until it is trained."""
    head = nn.Linear(hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def policy_pass(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, TokenStats]:
    """Hidden states [N, H] of a micro-batch's action tokens, and their log-probs and entropies."""
    hidden_NH = action_hidden(model.base_model, batch)
    return hidden_NH, action_stats(model, hidden_NH, batch)


def action_hidden(trunk: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Hidden states [N, H] that predict a micro-batch's action tokens, row by row: the only ones a head needs."""
    # Rows are padded on the right and the model is causal: no real token attends to padding, and without a mask the
    # attention kernel is the fast one.
    hidden_BTH: Tensor = trunk(input_ids=batch["ids_BT"], use_cache=False).last_hidden_state
    action_BT = batch["action_BT"]
    predicts_BT = torch.zeros_like(action_BT)
    predicts_BT[:, :-1] = action_BT[:, 1:]
    return hidden_BTH[predicts_BT]


def action_stats(model: PreTrainedModel, hidden_NH: Tensor, batch: dict[str, Tensor]) -> TokenStats:
    """Log-probs and entropies [N] of a micro-batch's action tokens under the model's head."""
    return token_stats(hidden_NH, head_of(model), batch["ids_BT"][batch["action_BT"]])
