"""Rollout plans: how many trajectories, from where, and which turns they share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from calibadv.rollout.plans import Plan, Prefix, chains, number_nodes, siblings, trees
from calibadv.types import Trajectory, Turn, TurnKind
from tests.build import trajectory, turn


@dataclass
class Roller:
    """A `RollFn` whose trajectories have `depth` turns, each of them sampled by the call that is named in its text."""

    depth: int = 3
    calls: list[tuple[int, Prefix]] = field(default_factory=list)

    async def __call__(self, sample: int, prefix: Prefix = ()) -> Trajectory:
        self.calls.append((sample, prefix))
        kinds = [TurnKind.SEARCH] * (self.depth - 1) + [TurnKind.ANSWER]
        sampled = tuple(turn(kind=kind, text=f"{sample}") for kind in kinds[len(prefix) :])
        return replace(trajectory(0.0, [1]), turns=prefix + sampled)


def texts(rolled: tuple[Trajectory, ...]) -> list[list[str]]:
    return [[turn.text for turn in t.turns] for t in rolled]


def turns_of(rolled: tuple[Trajectory, ...]) -> list[Turn]:
    return [turn for t in rolled for turn in t.turns]


async def test_chains_start_at_the_prompt_and_share_nothing() -> None:
    roll = Roller()
    rolled = await chains(3)(roll, 0)
    assert roll.calls == [(0, ()), (1, ()), (2, ())]
    assert {turn.node for turn in turns_of(rolled)} == {-1}
    assert [t.tree for t in rolled] == [0, 0, 0]


@pytest.mark.parametrize(("num_trees", "nodes", "rounds"), [(2, 2, 1), (1, 3, 2), (3, 0, 5), (2, 1, 0)])
async def test_a_forest_has_its_number_of_leaves_each_from_a_sample_of_its_own(
    num_trees: int, nodes: int, rounds: int
) -> None:
    roll = Roller()
    rolled = await trees(num_trees, nodes, rounds)(roll, 7)
    leaves = rounds * nodes + 1
    assert [t.tree for t in rolled] == [tree for tree in range(num_trees) for _ in range(leaves)]
    assert sorted(sample for sample, _ in roll.calls) == list(range(num_trees * leaves))


async def test_branches_go_on_from_a_search_of_their_own_tree_or_from_the_prompt() -> None:
    for seed in range(20):
        roll = Roller()
        rolled = await trees(2, 2, 2)(roll, seed)
        assert all(turn.kind is TurnKind.SEARCH for _, prefix in roll.calls for turn in prefix)
        for leaf in rolled:
            owners = {turn.text for turn in leaf.turns}
            trees_of_owners = {t.tree for t in rolled if t.turns[-1].text in owners}
            assert trees_of_owners == {leaf.tree}


async def test_every_state_of_a_tree_is_drawn_sooner_or_later_and_some_twice() -> None:
    starts: list[list[int]] = []
    for seed in range(60):
        roll = Roller()
        await trees(1, 2, 1)(roll, seed)
        starts.append([len(prefix) for _, prefix in roll.calls[1:]])
    assert {length for pair in starts for length in pair} == {0, 1, 2}
    assert any(first == second for first, second in starts)  # with replacement


async def test_later_rounds_branch_off_branches() -> None:
    owners = set()
    for seed in range(30):
        roll = Roller()
        await trees(1, 1, 2)(roll, seed)
        owners |= {turn.text for turn in roll.calls[2][1]}
    assert owners == {"0", "1"}


async def test_equal_nodes_are_exactly_the_shared_turns() -> None:
    roll = Roller()
    rolled = await trees(2, 3, 2)(roll, 3)
    arrays_of_node: dict[int, set[int]] = {}  # a shared turn is one array of ids
    for shared in turns_of(rolled):
        arrays_of_node.setdefault(shared.node, set()).add(id(shared.action_ids))
    assert {len(arrays) for arrays in arrays_of_node.values()} == {1}
    sampled = sum(roll.depth - len(prefix) for _, prefix in roll.calls)
    assert sorted(arrays_of_node) == list(range(sampled))
    assert len(turns_of(rolled)) > sampled


async def test_the_draws_of_a_plan_are_those_of_its_seed() -> None:
    first, again, other = [texts(await trees(2, 3, 2)(Roller(), seed)) for seed in (5, 5, 6)]
    assert first == again
    assert first != other


async def test_sibling_branches_are_dealt_in_turn_to_the_states_of_the_trunk() -> None:
    roll = Roller()
    rolled = await siblings(6)(roll, 0)
    assert [(sample, len(prefix)) for sample, prefix in roll.calls] == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 0), (5, 1)]
    assert texts(rolled)[2] == ["0", "2", "2"]
    trunk, _, second, third, *_ = ([turn.node for turn in t.turns] for t in rolled)
    assert trunk[:1] == second[:1]
    assert trunk[:2] == third[:2]
    assert len({turn.node for turn in turns_of(rolled)}) == 3 + 3 + 2 + 1 + 3 + 2


async def test_siblings_of_a_trunk_that_answers_at_once_start_at_the_prompt() -> None:
    roll = Roller(depth=1)
    await siblings(4)(roll, 0)
    assert [prefix for _, prefix in roll.calls] == [()] * 4


@pytest.mark.parametrize(("plan", "rolled"), [(siblings(6), 1), (trees(2, 2, 2), 2)], ids=["siblings", "trees"])
async def test_nothing_branches_off_a_trunk_that_failed(plan: Plan, rolled: int) -> None:
    calls = 0

    async def failing(sample: int, prefix: Prefix = ()) -> Trajectory:
        nonlocal calls
        calls += 1
        return replace(await Roller()(sample, prefix), infra_failed=sample == 0)

    assert sum(leaf.infra_failed for leaf in await plan(failing, 0)) == 1
    assert calls == rolled


async def test_one_sibling_is_the_trunk_alone() -> None:
    assert texts(await siblings(1)(Roller(), 0)) == [["0", "0", "0"]]


@pytest.mark.parametrize("forest", [(0, 2, 1), (2, -1, 1), (2, 2, -1)])
def test_an_impossible_forest_is_refused(forest: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"trees = {forest[0]}, nodes = {forest[1]}, rounds = {forest[2]}"):
        trees(*forest)


def test_turns_that_only_look_alike_are_not_shared() -> None:
    one, other = trajectory(0.0, [2]), trajectory(0.0, [2])
    np.testing.assert_array_equal(one.turns[0].action_ids, other.turns[0].action_ids)
    assert [t.turns[0].node for t in number_nodes([one, other, one])] == [0, 1, 0]
