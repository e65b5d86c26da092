"""A Hugging Face causal language model as a policy: loaded, and its pass over a micro-batch. Knows nothing of Ray."""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from calibadv.losses import TokenStats, token_stats
from calibadv.rllib.head import check_own_logits, head_of
from calibadv.rllib.packed_attention import PACKED, can_pack, layout, packs_alike

log = logging.getLogger(__name__)


def load_causal_lm(path: str, *, pack: bool = True) -> PreTrainedModel:
    """The causal LM in `path` (a folder or a hub name) in fp32, without dropout and router noise.

    `pack`: ready for packed rows (`packs_rows`) where its attention allows it. ValueError for a missing model, and for
    one whose own log-probs are not those of `policy_pass`.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        _without_noise(config)
        model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
        check_own_logits(model, partial(_logprobs, model))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot train the model at {path!r}: {error}") from None
    if pack and can_pack(model):
        model.set_attn_implementation(PACKED)
        if not packs_alike(model, partial(_logprobs, model)):
            pad_rows(model)
    return model


def pad_rows(model: PreTrainedModel) -> None:
    """Takes packed rows off a model whose log-probs they change."""
    log.warning("%s pads its rows: packed ones had other log-probs", type(model).__name__)
    model.set_attn_implementation("sdpa")


def packs_rows(model: PreTrainedModel) -> bool:
    """Whether `policy_pass` takes packed micro-batches of this model."""
    return bool(model.config._attn_implementation == PACKED)


def _logprobs(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    return policy_pass(model, batch)[1].logprobs_N


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


def policy_pass(
    model: PreTrainedModel, batch: dict[str, Tensor], temperature: float = 1.0
) -> tuple[Tensor, TokenStats]:
    """Hidden states [N, H] of a micro-batch's action tokens, and their log-probs and entropies at a temperature."""
    hidden_NH = action_hidden(model.base_model, batch)
    return hidden_NH, action_stats(model, hidden_NH, batch, temperature)


def action_hidden(trunk: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Hidden states [N, H] that predict a micro-batch's action tokens, row by row: the only ones a head needs."""
    # Rows are padded on the right and the model is causal: no real token attends to padding, and without a mask the
    # attention kernel is the fast one.
    packing: dict[str, Any] = {}
    if "positions_T" in batch:
        packing = {"position_ids": batch["positions_T"][None], "packed": layout(batch)}
    hidden_BTH: Tensor = trunk(input_ids=batch["ids_BT"], use_cache=False, **packing).last_hidden_state
    return hidden_BTH.flatten(0, 1)[batch["predicts_N"]]


def action_stats(
    model: PreTrainedModel, hidden_NH: Tensor, batch: dict[str, Tensor], temperature: float = 1.0
) -> TokenStats:
    """Log-probs and entropies [N] of a micro-batch's action tokens under the model's head at a temperature."""
    return token_stats(hidden_NH, head_of(model).at(temperature), batch["targets_N"])
