"""Attention over packed rows, for models whose attention is plain and causal. Knows nothing of Ray.

Q tokens of a segment, K keys that it reads, A heads, D head size, S segments; see `calibadv.micro_batches`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from calibadv.rllib.head import TOLERANCE
from calibadv.rllib.probe import LogprobsOf, alike, probe_logprobs

PACKED = "calibadv_packed"  # among transformers' attention implementations


@dataclass(frozen=True, slots=True)
class Layout:
    """`micro_batches.Segments` as attention reads them, once a pass."""

    lengths: list[int]
    key_lengths: list[int]
    keys_K: Tensor | None  # places that are read; None: every segment reads itself alone
    bounds_S: Tensor  # of queries, from 0, int32
    key_bounds_S: Tensor
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # by queries and keys: every layer asks for them

    def mask(self, query: Tensor, key: Tensor) -> Tensor | None:
        """What the queries may read, where they are fewer than the keys; None: causal as it is."""
        queries, keys = query.shape[2], key.shape[2]
        if queries == keys:
            return None
        if (queries, keys) not in self.masks:
            every = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device)
            self.masks[queries, keys] = every.tril(diagonal=keys - queries)
        return self.masks[queries, keys]


def layout(batch: dict[str, Tensor]) -> Layout:
    """Of a packed micro-batch's tensors."""
    lengths_S, key_lengths_S, keys_K = batch["lengths_S"], batch["key_lengths_S"], batch["keys_K"]
    bounds_S, key_bounds_S = (
        nn.functional.pad(lengths.cumsum(0), (1, 0)).to(keys_K.device, torch.int32)
        for lengths in (lengths_S, key_lengths_S)
    )
    alone = len(keys_K) == batch["ids_BT"].shape[1]
    return Layout(lengths_S.tolist(), key_lengths_S.tolist(), None if alone else keys_K, bounds_S, key_bounds_S)


def can_pack(model: PreTrainedModel) -> bool:
    """Whether the model's attention may be replaced by `packed_attention`, by what its class and settings say.

    Not where a layer sees a window alone, caps its scores, adds sinks, or is no attention at all.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    plain = window is None and set(kinds) == {"full_attention"} and not getattr(config, "attn_logit_softcapping", None)
    return plain and all(getattr(model, name, False) for name in ("_supports_attention_backend", "_supports_sdpa"))


def packs_alike(model: PreTrainedModel, logprobs_of: LogprobsOf, tolerance: float = TOLERANCE) -> bool:
    """Whether packed rows, two of which begin alike, have the log-probs that they have padded; `tolerance` in nats."""
    padded_N, packed_N = (probe_logprobs(model, logprobs_of, packed=packed) for packed in (False, True))
    return alike(padded_N, packed_N, tolerance)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Layout | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Outputs [1, T, A, D]: each segment's queries over its own keys, causally. Without a layout: the usual attention.

    Query, key and value as transformers hands them over: [1, A, T, D], keys and values perhaps of fewer heads.
    """
    if packed is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **given
        )
        return output, None
    query, key, value = in_autocast(query, key, value)
    if packed.keys_K is not None:
        key, value = key[:, :, packed.keys_K], value[:, :, packed.keys_K]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _variable_length(query, key, value, scaling, packed), None
    parts = zip(  # one split each: the backward pass of a slice would write zeros as long as the whole
        torch.split(query, packed.lengths, dim=2),
        torch.split(key, packed.key_lengths, dim=2),
        torch.split(value, packed.key_lengths, dim=2),
        strict=True,
    )
    outputs = [
        sdpa_attention_forward(module, q, k, v, packed.mask(q, k), scaling=scaling, is_causal=True)[0]
        for q, k, v in parts
    ]
    return torch.cat(outputs, dim=1), None


def in_autocast(*given: Tensor) -> tuple[Tensor, ...]:
    """The tensors as autocast hands them to torch's own attention; rotary positions leave query and key in fp32."""
    device = given[0].device.type
    if not torch.is_autocast_enabled(device):
        return given
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in given)


def _variable_length(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, packed: Layout) -> Tensor:
    """The same in one kernel, which takes half precision on CUDA alone."""
    from torch.nn.attention.varlen import varlen_attn

    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        packed.bounds_S,
        packed.key_bounds_S,
        max(packed.lengths),
        max(packed.key_lengths),
        scale=scaling,
        window_size=(-1, 0),  # causal, from the bottom right
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, Tensor)
    return output[None]


AttentionInterface.register(PACKED, packed_attention)
