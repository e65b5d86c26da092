"""Micro-batches: nothing lost, budgets kept, and packed rows read what they read alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibadv.batching import Row, to_row
from calibadv.micro_batches import LEAST_SHARED, MicroBatch, micro_batches, padding
from tests.build import trajectory


def row(ids: list[int], prompt: int) -> Row:
    """`prompt` tokens that were read, and the rest sampled."""
    made = to_row(trajectory(1.0, [len(ids) - prompt]), np.arange(len(ids) - prompt, dtype=np.float32))
    return replace(made, ids_T=np.array(ids), action_T=np.arange(len(ids)) >= prompt)


def test_micro_batch_pads_on_the_right_and_keeps_flat_arrays_row_by_row() -> None:
    rows = [to_row(trajectory(1.0, [n]), np.full(n, n, np.float32)) for n in (1, 3)]
    (micro,) = micro_batches(rows, token_budget=100)
    assert micro.rows == (1, 0)
    assert micro.ids_BT.shape == (2, 7)
    assert micro.ids_BT[1].tolist() == [0, 1, 2, 3, 10, 0, 0]
    assert micro.tokens["advantages_N"].tolist() == [3, 3, 3, 1]
    assert micro.predicts_N.tolist() == [3, 4, 5, 10]
    assert micro.targets_N.tolist() == [10, 11, 12, 10]
    assert [part.tolist() for part in micro.by_row(np.array([1, 2, 3, 4]))] == [[1, 2, 3], [4]]


def test_packed_rows_stand_one_after_the_other_without_their_last_tokens() -> None:
    (micro,) = micro_batches([row([1, 2, 3, 4], 2), row([1, 5, 6], 1)], 100, packed=True)
    assert micro.ids_BT.tolist() == [[1, 2, 3, 1, 5]]  # one token in common is not worth a segment
    assert micro.segments is not None
    assert micro.segments.lengths_S.tolist() == micro.segments.key_lengths_S.tolist() == [3, 2]
    assert micro.segments.keys_K.tolist() == [0, 1, 2, 3, 4]
    assert micro.segments.positions_T.tolist() == [0, 1, 2, 0, 1]
    assert micro.predicts_N.tolist() == [1, 2, 3, 4]
    assert micro.targets_N.tolist() == [3, 4, 5, 6]


def test_what_rows_begin_with_alike_is_computed_once_and_read_by_each() -> None:
    prompt = list(range(20))
    (micro,) = micro_batches([row([*prompt, 30, 31, 32], 20), row([*prompt, 40, 41], 20)], 100, packed=True)
    assert micro.ids_BT.tolist() == [[*prompt, 30, 31, 40]]
    assert micro.segments is not None
    assert micro.segments.lengths_S.tolist() == [20, 2, 1]
    assert micro.segments.key_lengths_S.tolist() == [20, 22, 21]
    assert micro.segments.keys_K.tolist() == [*range(20), *range(22), *range(20), 22]
    assert micro.segments.positions_T.tolist() == [*range(20), 20, 21, 20]
    assert micro.predicts_N.tolist() == [19, 20, 21, 19, 22]  # both first actions are predicted by the prompt's end
    assert micro.targets_N.tolist() == [30, 31, 32, 40, 41]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 200))
def test_padded_micro_batches_keep_the_token_budget_and_every_row(lengths: list[int], budget: int) -> None:
    batches = micro_batches([to_row(trajectory(1.0, [n]), np.full(n, n, np.float32)) for n in lengths], budget)
    assert all(batch.ids_BT.size <= budget or len(batch.ids_BT) == 1 for batch in batches)
    assert Counter(len(part) for batch in batches for part in batch.by_row(batch.row_N)) == Counter(lengths)
    assert sorted(index for batch in batches for index in batch.rows) == list(range(len(lengths)))


# Rows of a few long pieces have beginnings of many lengths in common, as a tree's rollouts have.
trees = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=12).map(
    lambda paths: [row([1, *(10 * piece + n % 7 for piece in path for n in range(11))], 1) for path in paths]
)


@given(trees, st.integers(1, 300))
def test_a_packed_row_reads_what_it_reads_alone(rows: list[Row], budget: int) -> None:
    batches = micro_batches(rows, budget, packed=True)
    assert sorted(index for batch in batches for index in batch.rows) == list(range(len(rows)))
    for batch in batches:
        assert batch.ids_BT.size <= budget or len(batch.rows) == 1
        assert batch.segments is not None
        assert batch.segments.lengths_S.sum() == batch.ids_BT.size
        read = read_by(batch)
        parts = zip(batch.rows, batch.by_row(batch.predicts_N), batch.by_row(batch.targets_N), strict=True)
        for index, predicts_N, targets_N in parts:
            ids = rows[index].ids_T.tolist()
            assert targets_N.tolist() == ids[1:]
            assert [read[place] for place in predicts_N] == [ids[:end] for end in range(1, len(ids))]


def read_by(batch: MicroBatch) -> dict[int, list[int]]:
    """The tokens, with positions in order, that each place's query reads."""
    segments, ids = batch.segments, batch.ids_BT[0]
    assert segments is not None
    read, start = {}, 0
    bounds = np.cumsum(segments.key_lengths_S)[:-1]
    for length, keys in zip(segments.lengths_S, np.split(segments.keys_K, bounds), strict=True):
        assert segments.positions_T[keys].tolist() == list(range(len(keys)))
        for query in range(length):  # causal from the bottom right
            seen = keys[: len(keys) - length + query + 1]
            assert seen[-1] == start + query
            read[start + query] = ids[seen].tolist()
        start += length
    return read


def test_equal_rows_are_computed_once() -> None:
    rows = [row(list(range(50)), 20) for _ in range(4)]
    (micro,) = micro_batches(rows, 100, packed=True)
    assert micro.ids_BT.size == 49
    assert micro.num_actions == 4 * 30


def test_less_than_the_least_that_is_shared_is_computed_again() -> None:
    prompt = list(range(LEAST_SHARED - 1))
    (micro,) = micro_batches([row([*prompt, 98, 99], 3), row([*prompt, 96, 97], 3)], 100, packed=True)
    assert micro.ids_BT.size == 2 * (LEAST_SHARED - 1 + 1)


def test_padding_is_a_pass_over_one_token_with_the_fields_of_any_other_and_nothing_in_them() -> None:
    (real,) = micro_batches([to_row(trajectory(1.0, [2]), np.zeros(2, np.float32))], token_budget=100)
    empty = padding()
    assert empty.num_actions == 0
    assert empty.ids_BT.tolist() == [[0]]
    assert not len(empty.predicts_N)
    assert {name: (array.size, array.dtype) for name, array in empty.tokens.items()} == {
        name: (0, array.dtype) for name, array in real.tokens.items()
    }
