"""A policy's weights under the names of its checkpoint, where transformers holds them under others.

transformers 5 holds a layer's experts in two tensors; checkpoints, and engines that open them, have one a matrix and
expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

Revert = Callable[[PreTrainedModel, dict[str, Tensor]], dict[str, Tensor]]
"""(model, its weights as transformers holds them) -> the same as the checkpoint has them."""


def as_in_checkpoint(
    model: PreTrainedModel, weights: Iterable[tuple[str, Tensor]], revert: Revert = revert_weight_conversion
) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under their checkpoint's names, cut as there; each is a view where it can be.

    One after another, so that a weight need be there only until the next is asked for. What needs no cut is the very
    parameter: learners that share their weights empty it then, whoever still holds it. `check_names` says whether that
    gives all that the whole would.
    """
    for name, weight in weights:
        yield from revert(model, {name: weight}).items()


def placeholder_weights(path: str, dtype: str, in_checkpoint: bool) -> Iterator[tuple[str, Tensor]]:
    """Zeros under the names, and of the shapes, of what a learner of the model in `path` publishes; no memory is taken.

    An engine that takes them at its start takes the first publication, whatever that holds.
    """
    model = _without_weights(path)
    weights = model.named_parameters()
    zero = torch.zeros((), dtype=getattr(torch, dtype))
    for name, weight in as_in_checkpoint(model, weights) if in_checkpoint else weights:
        yield name, zero.expand(weight.shape)


def check_names(path: str, revert: Revert = revert_weight_conversion) -> None:
    """ValueError naming the architecture in `path` if its weights cannot be put under the checkpoint's names singly."""
    model = _without_weights(path)
    weights = dict(model.named_parameters())
    try:
        singly = {name: weight.shape for name, weight in as_in_checkpoint(model, weights.items(), revert)}
        whole = {name: weight.shape for name, weight in revert(model, dict(weights)).items()}
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(_refusal(model, str(error))) from error
    if singly != whole:
        different = sorted(set(singly) ^ set(whole)) or [name for name in whole if whole[name] != singly[name]]
        raise ValueError(_refusal(model, f"{len(different)} differ, e.g. {different[0]}"))


def check_cpu_engine(path: str) -> None:
    """ValueError for a model with experts: for a CPU vLLM packs their weights as it loads, and takes no new ones."""
    model = _without_weights(path)
    own = {name for name, _ in model.named_parameters()}
    published = {name for name, _ in as_in_checkpoint(model, model.named_parameters())}
    if published != own:
        raise ValueError(
            f"{path!r} ({type(model).__name__}) has experts, and a vLLM engine on a CPU would not take their "
            "new weights: set rollout.engine 'torch', or give engines GPUs (cluster.gpus_per_engine)"
        )


def _without_weights(path: str) -> PreTrainedModel:
    file = Path(path, "config.json")
    return _built(path, file.read_text(encoding="utf-8") if file.is_file() else "")


@lru_cache(maxsize=1)
def _built(path: str, _config: str) -> PreTrainedModel:
    """The model in `path`, as its `config.json` now is; nobody changes it."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(path, trust_remote_code=False)
        )
    return model


def _refusal(model: PreTrainedModel, why: str) -> str:
    return (
        f"the weights of {type(model).__name__} cannot be published under the names of its checkpoint ({why}): vLLM "
        "would not take them; set rollout.engine to 'torch', or use another model"
    )
