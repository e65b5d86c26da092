"""Ranks do not depend on noise or batch; a bounded map forgets the right entry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.search.lru import LeastRecentlyUsed
from calibadv.search.ordering import best_first


def test_best_first_ranks_high_to_low_and_ties_by_row() -> None:
    assert best_first(np.array([0.1, 0.9, 0.5, 0.9]), 3).tolist() == [1, 3, 2]


def test_float_noise_is_a_tie() -> None:
    assert best_first(np.array([0.5, 0.5 + 1e-7]), 2).tolist() == [0, 1]


@given(st.lists(st.integers(-5, 5), max_size=60), st.integers(1, 8))
def test_best_first_equals_a_full_stable_sort(scores: list[int], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
    assert best_first(np.array(scores, dtype=np.float32), k).tolist() == expected


def test_the_entry_used_longest_ago_is_forgotten() -> None:
    memory: LeastRecentlyUsed[str, int] = LeastRecentlyUsed(2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1
    memory.put("c", 3)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (1, None, 3)
    assert (memory.hits, memory.misses, len(memory)) == (3, 1, 2)


def test_capacity_zero_remembers_nothing_and_negative_is_refused() -> None:
    memory: LeastRecentlyUsed[str, int] = LeastRecentlyUsed(0)
    memory.put("a", 1)
    assert memory.get("a") is None
    with pytest.raises(ValueError, match="capacity = -1"):
        LeastRecentlyUsed(-1)
