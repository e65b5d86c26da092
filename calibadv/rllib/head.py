"""A causal LM's head: what its own forward pass does to the last hidden states, measured, and the check that we do so.

The chunked log-probs apply the head themselves. What lies between hidden states and logits (a bias, a multiplier, a
soft cap) stands in many places of many configurations; the model's own code is asked instead, with hidden states that
are put in place of its decoder's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from calibadv.losses import Head

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # nats, in fp32
_ROWS = 64  # of the head that stands for a vocabulary where no weights are loaded
# Largest products: one at which no cap is felt, the usual ones, and one at which a cap is all that is left.
_TINY, _USUAL, _HUGE = 2.0**-10, (1.0, 20.0), 1e5
_EXACT = 1e-6  # what fp32 leaves of a scale of 1
_IDS = 8  # tokens of the comparison at load
_STEPS = "head_steps"  # attribute of a model, beside its configuration, which is saved


@dataclass(frozen=True, slots=True)
class Steps:
    """What follows the head's product: see `losses.Head`."""

    scale: float = 1.0
    cap: float | None = None


def head_of(model: PreTrainedModel) -> Head:
    """The head of a loaded model; its steps are measured when they are first asked for.

    ValueError naming the architecture where its logits are not the head's product, scaled and capped.
    """
    steps: Steps | None = getattr(model, _STEPS, None)
    if steps is None:
        steps = measured(model)
        setattr(model, _STEPS, steps)
    output = output_layer(model)
    return Head(output.weight, output.bias, steps.scale, steps.cap)


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The model's last layer. ValueError where it has none, or is not a decoder with a linear layer on top."""
    output = model.get_output_embeddings()
    if not isinstance(output, nn.Linear) or model.base_model is model:
        raise ValueError(_refusal(model))
    return output


@torch.no_grad()
def measured(model: PreTrainedModel) -> Steps:
    """The scale and cap with which the model's own forward pass follows its head. ValueError if those do not say it.

    Tiny logits show the scale, huge ones the cap; logits of the usual size must then be ours.
    """
    output = output_layer(model)
    noise = torch.Generator().manual_seed(0)
    hidden_TH = torch.randn(4, output.in_features, generator=noise).to(output.weight)
    hidden_TH /= (hidden_TH @ output.weight.T).abs().max().clamp(min=1e-12)  # now the largest product is 1
    with _bias_off(output):  # it follows the same steps, and would hide tiny products
        product_TV = hidden_TH @ output.weight.T
        tiny_TV, huge_TV = (_logits(model, hidden_TH * size) for size in (_TINY, _HUGE))
    if tiny_TV.shape != product_TV.shape:
        raise ValueError(_refusal(model))
    product_TV = product_TV.double()
    scale = float((tiny_TV.double() * product_TV).sum() / product_TV.square().sum()) / _TINY
    largest = float(huge_TV.abs().max())
    steps = Steps(
        scale=1.0 if abs(scale - 1) < _EXACT else scale,
        cap=largest if largest < 0.99 * abs(scale) * _HUGE else None,
    )
    for size in _USUAL:
        ours_TV = Head(output.weight, output.bias, steps.scale, steps.cap).logits(hidden_TH * size)
        if not _agree(_logits(model, hidden_TH * size), ours_TV):
            raise ValueError(_refusal(model))
    return steps


@torch.no_grad()
def check_own_logits(model: PreTrainedModel, logprobs_of: Callable[[dict[str, Tensor]], Tensor]) -> None:
    """Compares `logprobs_of` a batch of a few tokens with the model's own logits. ValueError where they differ.

    `logprobs_of`: log-probs [N] of the action tokens of a batch, as the learner computes them.
    """
    noise = torch.Generator().manual_seed(0)
    ids_1T = torch.randint(min(model.get_input_embeddings().weight.shape[0], 256), (1, _IDS), generator=noise)
    ids_1T = ids_1T.to(model.device)
    before_N = torch.arange(_IDS - 1, device=model.device)
    ours_N = logprobs_of({"ids_BT": ids_1T, "predicts_N": before_N, "targets_N": ids_1T[0, 1:]})
    own_TV = model(input_ids=ids_1T, use_cache=False).logits[0].float().log_softmax(-1)
    own_N = own_TV[:-1].gather(-1, ids_1T[0, 1:, None])[:, 0]
    difference = float((ours_N - own_N).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the learner's log-probs of {type(model).__name__} are up to {difference:.2g} nats from the model's own "
            f"(at most {TOLERANCE:g} in fp32): it cannot be trained here; use another model"
        )


def check_architecture(path: str) -> None:
    """Checks the head of the model in `path` without its weights: its code, its own settings, a small random head.

    ValueError naming the architecture where the learner's log-probs would not be the model's. What cannot be tried
    without weights is left to the check at load.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot train the model at {path!r}: {error}") from None
    output = output_layer(model.eval())
    noise = torch.Generator().manual_seed(0)
    inside = {id(tensor) for tensor in (*model.base_model.parameters(), *model.base_model.buffers())}
    for module in model.modules():
        for name, given in module.named_parameters(recurse=False):
            if module is output or id(given) not in inside:
                shape = (_ROWS, *given.shape[1:]) if module is output else given.shape
                real = torch.randn(shape, generator=noise, dtype=torch.float64) / max(1, shape[-1]) ** (len(shape) / 4)
                setattr(module, name, nn.Parameter(real, requires_grad=False))
    try:
        measured(model)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, IndexError, KeyError) as error:
        log.debug("the head of %s cannot be tried without weights: %s", type(model).__name__, error)


def _logits(model: PreTrainedModel, hidden_TH: Tensor) -> Tensor:
    """The model's own logits [T, V] where its decoder's hidden states are `hidden_TH`."""
    met = False

    def decoder(*_: Any, **__: Any) -> _Hidden:
        nonlocal met
        met = True
        return _Hidden(last_hidden_state=hidden_TH[None])

    def before_head(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs if met else (hidden_TH[None], *inputs[1:])  # some call their decoder by another way (OPT)

    trunk: Any = model.base_model
    hook = output_layer(model).register_forward_pre_hook(before_head)
    trunk.forward = decoder
    try:
        ids_1T = torch.zeros((1, len(hidden_TH)), dtype=torch.long, device=hidden_TH.device)
        logits: Tensor = model(input_ids=ids_1T, use_cache=False).logits
    finally:
        del trunk.forward
        hook.remove()
    return logits[0]


class _Hidden(BaseModelOutputWithPast):  # type: ignore[misc]
    """A decoder's output that has nothing but hidden states, whatever else is asked of it."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


@contextlib.contextmanager
def _bias_off(output: nn.Linear) -> Iterator[None]:
    bias = output.bias
    output.register_parameter("bias", None)
    try:
        yield
    finally:
        output.register_parameter("bias", bias)


def _agree(own_TV: Tensor, ours_TV: Tensor) -> bool:
    difference = own_TV.double().log_softmax(-1) - ours_TV.double().log_softmax(-1)
    return float(difference.abs().max()) <= TOLERANCE


def _refusal(model: PreTrainedModel) -> str:
    return (
        f"{type(model).__name__} makes its logits in another way than as a linear head's product, scaled and capped: "
        "the learner's log-probs would not be the model's; use another model"
    )
