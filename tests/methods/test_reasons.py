"""Every method's reasons multiply out to its credit, and say where the numbers come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibadv.methods import METHODS, make_method
from calibadv.methods.reasons import Explanation, turn_means
from calibadv.types import Group, TurnKind
from tests.build import group, trajectory

ADDING = ("criticsearch", "gigpo", "mt_grpo")  # to A_O an advantage of another scale
COMPARING = ("calibadv", "first_exposure", "grpo", "lld", "simpletir", "tree_grpo", *ADDING)  # rewards of a group
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("calibadv", {"preset": "reference", "lam": 2.0}),
    ("calibadv", {"soft_pen": "uniform", "adv_reb_at": "every_step"}),
    ("calibadv", {"soft_pen": "none"}),
    ("calibadv", {"adv_reb": False}),
    ("gigpo", {"episode_statistics": "turns", "omega": 0.5}),
    ("mt_grpo", {"form": "tree", "lam": 0.5}),
    ("ppo", {"gamma": 0.9}),
    ("simpletir", {"variant": "calibadv_paper"}),
    *((name, {"baseline": b}) for name in COMPARING for b in ("dr_grpo", "rloo", "maxrl")),
    *((name, {"baseline": "reinforce++"}) for name in COMPARING if name not in ADDING),
    ("calibadv", {"adv_reb_at": "every_step", "baseline": "rloo"}),
    ("gigpo", {"episode_statistics": "turns", "baseline": "rloo"}),
    ("mt_grpo", {"form": "tree", "baseline": "dr_grpo"}),
    ("simpletir", {"variant": "calibadv_paper", "baseline": "maxrl"}),
]


def drawn_group(seed: int) -> Group:
    """Up to five rollouts of up to four turns: void turns, shared first turns, equal rewards, all are drawn."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(rng.integers(1, 6)):
        turns = int(rng.integers(1, 5))
        docs = [[f"d{d}" for d in rng.choice(6, 3, replace=False)] for _ in range(turns - 1)]
        one = trajectory(
            float(rng.choice([0.0, 0.4, 1.0])),
            [int(n) for n in rng.integers(1, 5, turns)],
            docs,
            format_reward=float(rng.choice([1, 1, 0])),
        )
        drawn = [
            replace(
                turn,
                reward=float(rng.choice([-1.0, 0.2, 0.7])),
                kind=TurnKind.VOID if rng.random() < 0.1 and s < turns - 1 else turn.kind,
                node=int(rng.integers(0, 2)) if s == 0 and turns > 1 else -1,
                observation_ids=np.full(len(turn.observation_ids), rng.integers(0, 3), dtype=np.int64),
            )
            for s, turn in enumerate(one.turns)
        ]
        made.append(replace(one, turns=tuple(drawn), tree=i % 2))
    firsts = {turn.node: turn for t in made for turn in t.turns[:1] if turn.node >= 0}  # equal nodes are one turn
    return group(
        *(replace(t, turns=(firsts.get(t.turns[0].node, t.turns[0]), *t.turns[1:])) for t in made),
    )


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_reasons_multiply_out_to_the_credit(name: str, params: dict[str, Any]) -> None:
    method = make_method(name, params)
    assert method.explain is not None
    different = 0
    for seed in range(40):
        drawn = drawn_group(seed)
        credit = turn_means(method.advantages(drawn), drawn)
        totals = [[reasons.total for reasons in row] for row in method.explain(drawn)]
        assert [len(row) for row in totals] == [len(t.turns) for t in drawn.trajectories]
        for row, expected in zip(totals, credit, strict=True):
            assert row == pytest.approx(expected, abs=2e-5)
        different += sum(value != 0 for row in credit for value in row)
    assert different > 100


def calibrated() -> tuple[Group, Explanation]:
    """One right rollout that found a and b, one wrong one that found a, c, d and then nothing that counts."""
    drawn = group(
        trajectory(1.0, [2, 2], [["a", "b"]]),
        trajectory(0.0, [2, 2, 4], [["a", "c", "d"], ["e"]]),
    )
    explain = make_method("calibadv", {}).explain
    assert explain is not None
    return drawn, explain(drawn)


def test_a_softened_search_says_what_it_found_and_who_else_did() -> None:
    _, rows = calibrated()
    (product,) = rows[1][0].addends
    assert [term.name for term in product] == ["reward - mean", "1 / deviation", "1 - c"]
    assert [term.value for term in product] == pytest.approx([-0.5, 2**0.5, 2 / 3], rel=1e-4)
    assert product[0].why == "0.00 - 0.50"
    assert product[1].why == "of 2: 1.00 0.00"
    assert product[2].why == "1 of 3 documents silver, by correct rollout 1"
    assert rows[1][1].addends[0][2].why == "0 of 1 documents silver"


def test_a_c_that_a_switch_of_the_released_code_lowers_says_why() -> None:
    right = trajectory(1.0, [2, 2], [["a", "b", "c"]])
    # c is 1, 1 of 2 (b was seen) and 0 (a step that shares two documents with an earlier one repeats it).
    wrong = trajectory(0.0, [2, 2, 2, 2], [["b"], ["b", "c"], ["b", "c", "a"]])
    malformed = trajectory(0.0, [2, 2], [["a"]], format_reward=0.0)
    method = METHODS["calibadv"](preset="reference")
    assert method.explain is not None
    told = method.explain(group(right, wrong, malformed))
    terms = [
        (round(term.value, 3), term.why)
        for row in told
        for reasons in row
        for term in reasons.addends[0]
        if term.name == "1 - c"
    ]
    assert terms == [
        (0, "1 of 1 documents silver, by correct rollout 1"),
        (0.5, "2 of 2 documents silver, by correct rollout 1, 1 of them seen before"),
        (1, "3 of 3 documents silver, by correct rollout 1, but it repeats an earlier step"),
        (1, "1 of 1 documents silver, by correct rollout 1, but the rollout is not well-formed"),
    ]


def test_a_right_answer_says_the_masses_that_were_balanced() -> None:
    _, rows = calibrated()
    (product,) = rows[0][1].addends
    # The answers: 2 tokens of +0.71 and 4 of -0.71.
    assert (product[-1].name, product[-1].value) == ("λ N / P", pytest.approx(2.0))
    assert product[-1].why == "λ 1; at the answers N 2.83 and P 1.41 over tokens"
    assert [term.name for term in rows[0][0].addends[0]] == ["reward - mean", "1 / deviation"]  # a search is left alone


def test_a_ratio_of_every_step_is_told_by_the_masses_of_its_own_step() -> None:
    explain = make_method("calibadv", {"soft_pen": "none", "adv_reb_at": "every_step"}).explain
    assert explain is not None
    right, _ = explain(group(trajectory(1.0, [2, 2], [["a"]]), trajectory(0.0, [6, 4], [["b"]])))
    # 0.71 a token: 2 of +, 6 of - at the first turns, 2 and 4 at the second ones.
    assert [reasons.addends[0][-1].why for reasons in right] == [
        "λ 1; at turn 1 N 4.24 and P 1.41 over tokens",
        "λ 1; at turn 2 N 2.83 and P 1.41 over tokens",
    ]


def test_a_search_beside_no_other_of_its_state_has_no_step_advantage() -> None:
    drawn = group(trajectory(1.0, [1, 1], [["a"]]))
    explain = make_method("gigpo", {}).explain
    assert explain is not None
    (first, _) = explain(drawn)[0]
    assert [[term.name for term in product] for product in first.addends] == [
        ["reward, alone", "1 / (1 + ε)"],
        ["ω", "return from this state without a peer"],
    ]
