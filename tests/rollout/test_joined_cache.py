"""Rows that come and go: what is cached stays as long as the longest of them."""

from __future__ import annotations

import torch
from transformers import Qwen2Config

from calibadv.rollout.joined_cache import JoinedCache

CONFIG = Qwen2Config(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=1)


def cached(*rows: list[int]) -> JoinedCache:
    """Of one layer whose keys [B, 1, T, 1] are the tokens themselves, 0 where there is padding."""
    length = max(map(len, rows))
    keys_BT = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    cache = JoinedCache.of(CONFIG, (keys_BT > 0).long())
    cache.layers.update(keys_BT[:, None, :, None].float(), -keys_BT[:, None, :, None].float(), 0)
    return cache


def held(cache: JoinedCache) -> list[list[float]]:
    layer = cache.layers.layers[0]
    assert torch.equal(layer.values, -layer.keys)
    return layer.keys[:, 0, :, 0].tolist()


def test_a_joined_row_is_padded_on_the_left() -> None:
    cache = cached([1, 2, 3])
    cache.join(cached([4, 5]))
    assert held(cache) == [[1, 2, 3], [0, 4, 5]]
    assert cache.mask_BT.tolist() == [[1, 1, 1], [0, 1, 1]]


def test_with_the_longest_row_goes_what_was_padding_for_its_sake() -> None:
    cache = cached([1, 2, 3, 4], [5, 6], [7])
    cache.select(torch.tensor([2, 1, 1]))
    assert held(cache) == [[0, 7], [5, 6], [5, 6]]
    assert cache.mask_BT.tolist() == [[0, 1], [1, 1], [1, 1]]


def test_rows_that_always_overlap_do_not_make_the_cache_longer_than_a_row() -> None:
    cache = cached([1])
    for _ in range(10):
        cache.join(cached([2, 2]))
        cache.grow()
        cache.layers.update(torch.full((2, 1, 1, 1), 9.0), torch.full((2, 1, 1, 1), -9.0), 0)
        cache.select(torch.tensor([1]))  # the older one ends
    assert held(cache) == [[2, 2, 9]]
