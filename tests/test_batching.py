"""Rows and shards: nothing lost, nothing trained twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibadv.batching import shard_groups, to_row
from tests.build import group, trajectory


def test_row_marks_exactly_the_sampled_tokens_and_ends_at_the_last_one() -> None:
    t = trajectory(1.0, [2, 1])  # prompt 4, action 2, observation 3, action 1
    row = to_row(t, np.array([1, 2, 3], np.float32), minibatch=1)
    assert row.ids_T.tolist() == [0, 1, 2, 3, 10, 11, 5, 5, 5, 10]
    assert row.action_T.nonzero()[0].tolist() == [4, 5, 9]
    assert row.old_logprobs_N.tolist() == [-1, -1, -1]
    assert row.advantages_N.tolist() == [1, 2, 3]


groups = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=12).map(
    lambda shapes: [group(*(trajectory(1.0, [n]) for n in shape)) for shape in shapes]
)


@given(groups, st.integers(1, 4), st.integers(1, 3))
def test_mini_batches_do_not_depend_on_the_number_of_learners(gs: list, minibatches: int, learners: int) -> None:
    def draw(num_shards: int) -> dict[int, tuple[int, ...]]:
        shards = shard_groups(gs, num_minibatches=minibatches, num_shards=num_shards, seed=7)
        assert len(shards) == num_shards
        return {id(item.group): item.minibatch_G for shard in shards for item in shard}

    assert draw(learners) == draw(1)
    sizes = Counter(m for item in draw(1).values() for m in item)
    assert sum(sizes.values()) == sum(len(g.trajectories) for g in gs)
    assert max(sizes.values()) - min(sizes.get(m, 0) for m in range(minibatches)) <= 1


@given(groups, st.integers(1, 4), st.integers(1, 3))
def test_every_rollout_trains_on_one_learner(gs: list, minibatches: int, learners: int) -> None:
    shards = shard_groups(gs, num_minibatches=minibatches, num_shards=learners, seed=7)
    trained = Counter((id(item.group), i) for shard in shards for item in shard for i in item.trained)
    assert trained == Counter((id(g), i) for g in gs for i in range(len(g.trajectories)))
    assert all(len(item.trained) for shard in shards for item in shard)


@given(groups, st.integers(1, 4), st.integers(1, 2))
def test_groups_drawn_whole_are_cut_at_boundaries_alone(gs: list, minibatches: int, passes: int) -> None:
    (shard,) = shard_groups(gs, num_minibatches=minibatches, num_shards=1, seed=7, passes=passes, whole_groups=True)
    for number in range(passes):
        drawn = [(item.minibatch_G, *item.later_PG)[number] for item in shard]
        sizes = Counter(m for minibatch_G in drawn for m in minibatch_G)
        assert all(m // minibatches == number for m in sizes)
        assert max(sizes.values()) - min(sizes.get(number * minibatches + m, 0) for m in range(minibatches)) <= 1
        assert sum(len(set(minibatch_G)) - 1 for minibatch_G in drawn) <= minibatches - 1


def test_whole_groups_are_drawn_anew_in_each_pass_and_with_each_seed() -> None:
    gs = [group(*(trajectory(1.0, [1]) for _ in range(5))) for _ in range(8)]

    def drawn(seed: int) -> list[tuple[int, ...]]:
        (shard,) = shard_groups(gs, num_minibatches=4, num_shards=1, seed=seed, passes=2, whole_groups=True)
        of = {id(item.group): (item.minibatch_G, *item.later_PG) for item in shard}
        return [tuple(of[id(g)][p][0] % 4 for g in gs) for p in range(2)]

    first, second = drawn(7)
    assert sorted(first) == sorted(second) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert first != second
    assert first != drawn(8)[0]


def test_shards_are_balanced_by_tokens() -> None:
    gs = [group(trajectory(1.0, [n])) for n in (100, 50, 51, 1)]
    shards = shard_groups(gs, num_minibatches=1, num_shards=2, seed=0)
    assert sorted(sum(len(item) for item in shard) for shard in shards) == [
        sum(len(i) for i in s) for s in sorted(shards, key=lambda s: sum(map(len, s)))
    ]
    loads = [sum(len(item) for item in shard) for shard in shards]
    assert abs(loads[0] - loads[1]) <= 10


def test_what_a_group_begins_with_alike_counts_once_unless_rows_are_padded() -> None:
    gs = [group(*(trajectory(1.0, [20]) for _ in range(4))), group(trajectory(1.0, [21]))]
    for packed, whole in ((True, True), (False, False)):
        shards = shard_groups(gs, num_minibatches=1, num_shards=2, seed=0, packed=packed)
        assert any(item.group is gs[0] and len(item.trained) == 4 for shard in shards for item in shard) == whole


def test_each_pass_draws_mini_batches_of_its_own_and_the_first_draw_stays() -> None:
    gs = [group(*(trajectory(1.0, [1, 1]) for _ in range(5))) for _ in range(8)]

    def drawn(passes: int) -> list[tuple[int, ...]]:
        shards = shard_groups(gs, num_minibatches=4, num_shards=2, seed=7, passes=passes)
        of = {id(item.group): (item.minibatch_G, *item.later_PG) for shard in shards for item in shard}
        return [tuple(index for g in gs for index in of[id(g)][p]) for p in range(passes)]

    (single,), (first, second, third) = drawn(1), drawn(3)
    assert first == single
    for index, draw in enumerate((first, second, third)):
        assert sorted(draw) == [m + 4 * index for m in range(4) for _ in range(10)]
    assert [m - 4 for m in second] != list(first)
    assert [m - 8 for m in third] != [m - 4 for m in second]
