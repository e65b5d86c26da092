"""The keys and values of rows that run together, left-padded to one length; and of which models they can be joined.

Shapes: B rows, T cached tokens (left-padded).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

INSTEAD = "set rollout.engine to 'vllm', or use another model"


@dataclass(slots=True)
class JoinedCache:
    """A cache as the model fills it, and which of its positions are real, `mask_BT`: those of padding are not."""

    layers: DynamicCache
    mask_BT: torch.Tensor

    @classmethod
    def of(cls, config: PreTrainedConfig, mask_BT: torch.Tensor) -> JoinedCache:
        """An empty one. Its layers keep every position: sliding windows are the mask's, and rows can be joined."""
        cache = DynamicCache(config=config)
        cache.layers = [DynamicLayer() if type(layer) is DynamicSlidingWindowLayer else layer for layer in cache.layers]
        return cls(cache, mask_BT)

    def select(self, rows_B: torch.Tensor) -> None:
        """Leaves these rows, in this order, without what is padding in all of them; a row may come more than once."""
        self.layers.batch_select_indices(rows_B)
        mask_BT = self.mask_BT[rows_B]
        padding = int(mask_BT.any(dim=0).long().argmax())
        for layer in self.layers.layers:
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[:, :, padding:], layer.values[:, :, padding:]
        self.mask_BT = mask_BT[:, padding:]

    def join(self, other: JoinedCache) -> None:
        """Takes the rows of another one behind its own."""
        length = max(other.mask_BT.shape[1], self.mask_BT.shape[1])
        self.mask_BT = torch.cat([_left_pad(self.mask_BT, length, 1), _left_pad(other.mask_BT, length, 1)])
        for old, fresh in zip(self.layers.layers, other.layers.layers, strict=True):
            if old.is_initialized:  # a layer may have nothing of its own (Gemma 3n)
                old.keys = torch.cat([_left_pad(old.keys, length, 2), _left_pad(fresh.keys, length, 2)])
                old.values = torch.cat([_left_pad(old.values, length, 2), _left_pad(fresh.values, length, 2)])

    def grow(self) -> None:
        """Room for one token more of every row."""
        self.mask_BT = torch.nn.functional.pad(self.mask_BT, (0, 1), value=1)


def check_folder(folder: str | Path) -> None:
    """Looks at the configuration in a model's folder alone. ValueError for layers that cannot be joined."""
    check_layers(AutoConfig.from_pretrained(folder, trust_remote_code=False))


def check_layers(config: PreTrainedConfig) -> None:
    """ValueError naming the model for layers that keep a state instead of each position's keys and values."""
    try:
        layers = DynamicCache(config=config).layers
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the torch engine cannot run a model of type {config.model_type!r}: {INSTEAD}") from error
    known = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    chunked = "chunked_attention" in (getattr(config.get_text_config(decoder=True), "layer_types", None) or ())
    if other := sorted({type(layer).__name__ for layer in layers if type(layer) not in known}) or ["chunks"] * chunked:
        raise ValueError(
            f"the torch engine joins the caches of rows position by position, and a model of type "
            f"{config.model_type!r} has layers that keep something else ({', '.join(other)}): {INSTEAD}"
        )


def _left_pad(x: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    missing = length - x.shape[dim]
    shape = list(x.shape)
    shape[dim] = missing
    return torch.cat([x.new_zeros(shape), x], dim) if missing else x
