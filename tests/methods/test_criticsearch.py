"""CriticSearch: labels mixed into the credit of intermediate searches, and where they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.methods.criticsearch import criticsearch
from calibadv.methods.grpo import grpo
from calibadv.rewards.gold_match import GoldNeed
from calibadv.types import Document, Group
from tests.build import QUESTION, group, trajectory
from tests.methods.checks import assert_grpo, assert_order_is_nothing
from tests.methods.test_mt_grpo import rollout
from tests.rewards.judge_server import JudgeServer

HALF = np.sqrt(0.5)


def test_labels_by_hand() -> None:
    # A_O = ±0.707107; labels 1, -1, 1 have mean 1/3 and std 1.154701: 0.577350, -1.154701, 0.577350.
    first, second = criticsearch().advantages(group(rollout(1.0, "ssa", [1, -1]), rollout(0.0, "sa", [1])))
    outcome, good, bad = 0.75 * HALF, 0.25 * 0.577350, 0.25 * -1.154701
    np.testing.assert_allclose(first, [outcome + good, outcome + bad, HALF], atol=5e-6)
    np.testing.assert_allclose(second, [-outcome + good, -HALF], atol=5e-6)


def test_only_intermediate_searches_are_mixed() -> None:
    # The void turn and the search that ends its rollout keep A_O, whatever they were labelled.
    first, second = criticsearch(alpha=0.5).advantages(group(rollout(1.0, "vsa", [1, 1]), rollout(0.0, "ss", [-1, -1])))
    np.testing.assert_allclose(first, [HALF, HALF, HALF], atol=5e-6)  # 0.5 * 0.7071 + 0.5 * 0.7071 at the search
    np.testing.assert_allclose(second, [-HALF, -HALF], atol=5e-6)
    swapped, _ = criticsearch(alpha=0.5).advantages(group(rollout(1.0, "vsa", [1, -1]), rollout(0.0, "ss", [1, 1])))
    np.testing.assert_allclose(swapped, [HALF, 0, HALF], atol=5e-6)


def test_without_a_difference_in_labels_a_search_keeps_its_share_of_the_outcome() -> None:
    for label in (-1, 0, 1):
        first, _ = criticsearch().advantages(group(rollout(1.0, "sa", [label]), rollout(0.0, "sa", [label])))
        np.testing.assert_allclose(first, [0.75 * HALF, HALF], atol=5e-6)


async def test_gold_passages_are_the_default_judge() -> None:
    question = replace(QUESTION, gold_doc_ids=("g",))
    g = group(trajectory(1.0, [1, 1, 1], [["x"], ["g"]]), question=question)
    score_turns = criticsearch().score_turns
    assert score_turns is not None
    assert list((await score_turns()(g, {})).rewards) == [[-1, 1, 0]]
    assert criticsearch(min_gold=0.8).gold == GoldNeed("documents", 0.8)
    assert criticsearch(judge="endpoint", judge_url="http://127.0.0.1:1/v1", judge_model="m").gold is None


@pytest.mark.parametrize("retries", [0, 1])
async def test_an_endpoint_is_asked_as_it_was_configured(server: JudgeServer, retries: int) -> None:
    server.answer = lambda _prompt, _number: (500, "{}")
    method = criticsearch(judge="endpoint", judge_url=server.url, judge_model="m", judge_retries=retries)
    assert method.score_turns is not None
    rolled = group(trajectory(1.0, [1, 1], [["x"]]))
    scores = await method.score_turns()(rolled, {"x": Document("x", "", "text")})
    assert scores.counts["judge/failed"] == 1
    assert [request["model"] for request in server.requests] == ["m"] * (1 + retries)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5, expected a share"),
        ({"judge": "silver"}, "judge is 'silver', expected 'gold'"),
        ({"judge": "endpoint"}, "judge = 'endpoint' with judge_url ''"),
        ({"judge": "endpoint", "judge_url": "http://127.0.0.1:1/v1"}, "judge_model ''"),
    ],
)
def test_wrong_parameters_are_refused(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        criticsearch(**params)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    rollouts = []
    for _ in range(draw(st.integers(2, 5))):
        kinds = "s" * draw(st.integers(0, 3)) + draw(st.sampled_from("asv"))
        labels = [draw(st.sampled_from([-1.0, 0.0, 1.0])) for _ in kinds]
        rollouts.append(rollout(draw(st.sampled_from([0.0, 0.5, 1.0])), kinds, labels))
    return group(*rollouts)


@given(groups())
def test_alpha_zero_is_grpo(g: Group) -> None:
    assert_grpo(criticsearch(alpha=0).advantages(g), g)


@given(groups())
def test_the_last_turn_always_keeps_the_outcome_advantage(g: Group) -> None:
    for row, plain in zip(criticsearch().advantages(g), grpo().advantages(g), strict=True):
        assert row[-1] == plain[-1]


@given(groups(), st.randoms(use_true_random=False))
def test_permuting_the_group_permutes_the_credit(g: Group, random) -> None:
    assert_order_is_nothing(criticsearch(), g, random)


@given(groups(), st.sampled_from([-1.0, 0.0, 1.0]))
def test_equal_rewards_and_labels_give_exact_zeros(g: Group, label: float) -> None:
    equal = group(*(rollout(0.3, "s" * (len(t.turns) - 1) + "a", [label] * len(t.turns)) for t in g.trajectories))
    assert all(not row.any() for row in criticsearch().advantages(equal))
