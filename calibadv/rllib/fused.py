"""Fused kernels for a policy's norms, rotary embedding and MLPs (`learner.fused`), by liger-kernel.

The head stays ours: theirs has no entropy. Knows nothing of Ray.
"""

from __future__ import annotations

import inspect

from transformers import PreTrainedModel

_HEADS = ("cross_entropy", "fused_linear_cross_entropy")


def fuse(model: PreTrainedModel) -> None:
    """Puts liger-kernel's kernels in place of the model's own, in place.

    The rotary embedding is replaced for every model of this kind in the process. ValueError where liger-kernel is not
    at hand, or has nothing for the kind.
    """
    try:
        import liger_kernel.transformers as liger
    except ImportError as error:
        raise ValueError(
            f"learner.fused needs liger-kernel ({error}): pip install 'calibadv[fused]', or set it to false"
        ) from None
    kind = model.config.model_type
    apply = getattr(liger, f"apply_liger_kernel_to_{kind}", None)
    if apply is None:
        raise ValueError(f"liger-kernel has no kernels for models of type {kind!r}: set learner.fused to false")
    known = inspect.signature(apply).parameters
    apply(model=model, **{name: False for name in _HEADS if name in known})
