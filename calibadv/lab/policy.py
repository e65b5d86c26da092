"""The laboratory's policy: a decoder like Qwen2's of 0.43 M parameters, with a static cache for sampling.

B rows, T tokens, H hidden size, A attention heads, D head size, V vocabulary, W cached positions that are in use.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from calibadv.lab.language import VOCABULARY

HIDDEN, LAYERS, HEADS, FFN, LONGEST = 96, 3, 4, 256, 512
ROPE_THETA = 10000.0
_SHARPNESS = 60.0  # squared norm of a query bias: about 10 nats of logit at the right distance
_LOOK_BACK_HEADS = 3  # of the first layer, at 1, 2, 3 tokens before


class Block(nn.Module):
    """Attention with rotary positions, then a gated feed-forward net; both after RMS norms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(HIDDEN, eps=1e-6), nn.RMSNorm(HIDDEN, eps=1e-6)
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.up = nn.Linear(HIDDEN, 2 * FFN, bias=False)
        self.down = nn.Linear(FFN, HIDDEN, bias=False)

    def project(self, x_BTH: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned to their positions, and values, each [B, A, T, D]."""
        b, t, _ = x_BTH.shape
        qkv = self.qkv(self.norm1(x_BTH)).view(b, t, 3, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4)
        q, k = rotated(qkv[:2], cos, sin)
        return q, k, qkv[2]

    def finish(self, x_BTH: Tensor, attended_BATD: Tensor) -> Tensor:
        """The block's output [B, T, H] from what its heads read."""
        x_BTH = x_BTH + self.out(attended_BATD.transpose(1, 2).flatten(2))
        gate, value = self.up(self.norm2(x_BTH)).chunk(2, dim=-1)
        output: Tensor = x_BTH + self.down(silu(gate) * value)
        return output


class Policy(nn.Module):
    """Ids in, hidden states out; the head is the embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, HIDDEN)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = nn.RMSNorm(HIDDEN, eps=1e-6)
        half = HIDDEN // HEADS // 2
        angle = torch.arange(LONGEST)[:, None] * ROPE_THETA ** -(torch.arange(half) / half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self._start()

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Hidden states [B, T, H] before the head. Rows are padded on the right, which no real token attends to."""
        x, cos, sin = self.embed(ids_BT), self.cos[: ids_BT.shape[1]], self.sin[: ids_BT.shape[1]]
        for block in self.layers:
            q, k, v = block.project(x, cos, sin)
            x = block.finish(x, scaled_dot_product_attention(q, k, v, is_causal=True))
        hidden: Tensor = self.norm(x)
        return hidden

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    @torch.no_grad()
    def _start(self) -> None:
        """Heads that look for the same word, and in the first layer at the words just before.

        A small model spends most of its training on finding such heads; see `pocket.initial_weights`.
        """
        nn.init.normal_(self.embed.weight, std=0.1)
        for index, block in enumerate(self.layers):
            nn.init.normal_(block.up.weight, std=0.5 / math.sqrt(HIDDEN))
            nn.init.normal_(block.down.weight, std=0.1 / math.sqrt(FFN))
            size = HIDDEN // HEADS
            rows = torch.cat([nn.init.orthogonal_(torch.empty(size, HIDDEN)) for _ in range(HEADS)])
            values = nn.init.orthogonal_(torch.empty(HIDDEN, HIDDEN))
            block.qkv.weight.copy_(torch.cat([rows, rows, values]))
            block.qkv.bias.zero_()
            block.out.weight.copy_(values.T * 0.5)
            if index == 0:
                for head in range(_LOOK_BACK_HEADS):
                    self._look_back(block, head, distance=head + 1)

    def _look_back(self, block: Block, head: int, distance: int) -> None:
        """A query bias, and a key bias that meets it `distance` tokens later."""
        size = HIDDEN // HEADS
        query = torch.full((size,), math.sqrt(_SHARPNESS / size))
        for part, bias in ((0, query), (1, rotated(query, self.cos[distance], self.sin[distance]))):
            span = slice(part * HIDDEN + head * size, part * HIDDEN + (head + 1) * size)
            block.qkv.weight[span] *= 0.1
            block.qkv.bias[span] = bias


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Vectors [..., D] as rotary embedding turns them at the positions of `cos` and `sin` [..., D / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Cache:
    """Keys and values of `rows` sequences, written in place; one token a call for the first B of them.

    The rows in use come first: whoever gives one up `move`s the last of them there.
    """

    def __init__(self, policy: Policy, rows: int) -> None:
        self._policy = policy
        shape = (LAYERS, rows, HEADS, LONGEST, HIDDEN // HEADS)
        self._k, self._v = torch.zeros(shape), torch.zeros(shape)
        self._row = torch.arange(rows)
        self._hidden_from = torch.full((LONGEST + 1, LONGEST), 0.0)
        self._hidden_from.masked_fill_(torch.arange(LONGEST)[None] > torch.arange(LONGEST + 1)[:, None], -1e9)

    def move(self, source: int, target: int, positions: int) -> None:
        """Row `target` becomes what row `source` is, up to so many positions."""
        if source != target:
            for cache in (self._k, self._v):
                cache[:, target, :, :positions] = cache[:, source, :, :positions]

    def step(self, ids_B: Tensor, at_B: Tensor) -> Tensor:
        """Hidden states [B, H] after one more token in each of the first B rows, at its position."""
        policy, rows, width = self._policy, len(ids_B), int(at_B.max()) + 1
        x = policy.embed(ids_B)[:, None]
        cos, sin = policy.cos[at_B][:, None, None], policy.sin[at_B][:, None, None]
        bias = self._hidden_from[at_B, :width].repeat_interleave(HEADS, dim=0)[:, None]
        row_B = self._row[:rows]
        for block, k_all, v_all in zip(policy.layers, self._k, self._v, strict=True):
            q, k, v = block.project(x, cos, sin)
            k_all[row_B, :, at_B] = k[:, :, 0]
            v_all[row_B, :, at_B] = v[:, :, 0]
            k_W, v_W = (c[:rows].flatten(0, 1)[:, :width] for c in (k_all, v_all))
            scores = torch.baddbmm(bias, q.flatten(0, 1), k_W.transpose(1, 2), alpha=(HIDDEN // HEADS) ** -0.5)
            attended = torch.bmm(scores.softmax(-1), v_W).view(rows, HEADS, 1, -1)
            x = block.finish(x, attended)
        hidden: Tensor = policy.norm(x)[:, 0]
        return hidden
