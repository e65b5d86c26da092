"""Diagnostics against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from calibadv.diagnostics import group_metrics, tool_metrics
from calibadv.measures import token_budget, turn_rows
from calibadv.types import CalledTool, Group, Question, Trajectory, Turn, TurnKind
from tests.build import row

LOG_HALF = math.log(0.5)


def turn(kind: TurnKind, tokens: int, docs: tuple[str, ...] = (), logprob: float = LOG_HALF) -> Turn:
    return Turn(
        kind=kind,
        action_ids=np.arange(tokens, dtype=np.int64),
        logprobs=np.full(tokens, logprob, dtype=np.float32),
        observation_ids=np.zeros(3 if docs else 0, dtype=np.int64),
        text="",
        query="q" if kind is TurnKind.SEARCH else None,
        doc_ids=docs,
    )


def trajectory(
    *turns: Turn, f1: float, form: float = 1.0, answer: str | None = "x", failed: bool = False
) -> Trajectory:
    return Trajectory(np.zeros(5, np.int64), turns, answer, f1, form, f1 * form, infra_failed=failed)


def golden_group() -> Group:
    """The specification's example: rewards [1, 0, 0.5]; r0 `11··1`, r1 `11··11`, r2 `11··111`."""
    search = turn(TurnKind.SEARCH, 2, ("a", "b", "c"))
    return Group(
        Question("q", "?", ("x",)),
        (
            trajectory(search, turn(TurnKind.ANSWER, 1), f1=1.0, answer="X"),
            trajectory(search, turn(TurnKind.ANSWER, 2), f1=0.0, answer="y"),
            trajectory(search, turn(TurnKind.ANSWER, 3), f1=0.5, answer="x z"),
        ),
    )


def golden_metrics() -> dict[str, float]:
    before = [row(1, 1, 1), row(-1, -1, -1, -1), row(0, 0, 0, 0, 0)]
    after = [row(1, 1, 2), row(-1 / 3, -1 / 3, -1, -1), row(0, 0, 0, 0, 0)]
    scores = [[1.0], [2 / 3], [0.0]]
    return group_metrics([golden_group()], [before], [after], [scores], [frozenset({"a", "b", "c"})])


def test_likely_correct_in_the_paper_is_every_document_silver() -> None:
    silver = frozenset("ab")
    found = [("a", "b"), ("a", "x"), ("x",), ()]
    queries = tuple(trajectory(turn(TurnKind.SEARCH, 1, docs), turn(TurnKind.ANSWER, 1), f1=0.0) for docs in found)
    credit, group = [row(-1, -1)] * 4, Group(Question("q", "?", ("x",)), queries)
    scores = [[1.0], [0.5], [0.0], [0.0]]
    metrics = group_metrics([group], [credit], [credit], [scores], [silver])
    assert metrics["advantage/penalised_all_silver"] == 1 / 4
    assert metrics["advantage/penalised_some_silver"] == 2 / 4
    # Before calibration, which may leave nothing of the blame.
    spared = group_metrics([group], [credit], [[row(0, -1), *credit[1:]]], [scores], [silver])
    assert spared["advantage/penalised_all_silver"] == 1 / 4
    assert spared["advantage/penalised_some_silver"] == 2 / 4
    # By documents, whatever score the method has of them: the uniform control's is 0.5 everywhere.
    uniform = group_metrics([group], [credit], [credit], [[[0.5]] * 4], [silver])
    assert uniform["advantage/penalised_all_silver"] == 1 / 4
    assert uniform["advantage/penalised_some_silver"] == 2 / 4


def node(number: int, tokens: int) -> Turn:
    return replace(turn(TurnKind.SEARCH, tokens), node=number)


def test_a_turn_that_an_earlier_trajectory_holds_is_reused_and_not_sampled() -> None:
    tree = Group(
        Question("q", "?", ("x",)),
        (
            trajectory(node(0, 3), node(1, 4), f1=1),
            trajectory(node(0, 3), node(2, 5), f1=0),
            trajectory(node(0, 3), node(2, 5), node(3, 1), f1=0),
        ),
    )
    assert token_budget([tree]) == (3 + 4 + 5 + 1, 3 + 3 + 5)
    assert token_budget([tree, tree]) == (26, 22)  # node numbers are a group's own


def test_chains_reuse_nothing_though_their_turns_have_no_number() -> None:
    assert token_budget([golden_group()]) == (12, 0)
    assert token_budget([]) == (0, 0)


def test_turn_rows_cut_a_credit_row_at_turn_borders() -> None:
    rollout = trajectory(turn(TurnKind.SEARCH, 2), turn(TurnKind.ANSWER, 1), f1=1)
    assert [part.tolist() for part in turn_rows(rollout, row(1, 2, 3))] == [[1, 2], [3]]
    assert turn_rows(trajectory(f1=0), row()) == []
    with pytest.raises(ValueError, match="must have 3 entries"):
        turn_rows(rollout, row(1))


def test_group_metrics_of_the_specification_example() -> None:
    metrics = golden_metrics()
    assert metrics["reward/mean"] == metrics["reward/f1"] == pytest.approx(0.5)
    assert metrics["reward/em"] == pytest.approx(1 / 3)
    assert metrics["reward/format"] == 1
    assert metrics["advantage/neg_pos_ratio_before"] == pytest.approx(4 / 3)
    assert metrics["advantage/neg_pos_ratio"] == pytest.approx((2 + 2 / 3) / 4)
    assert metrics["advantage/neg_pos_ratio_final"] == pytest.approx(1.0)
    assert metrics["advantage/penalised_all_silver"] == 1.0
    assert metrics["advantage/penalised_some_silver"] == 1.0
    assert metrics["advantage/zero_share"] == 0.0
    assert metrics["silver/empty_share"] == 0.0
    assert metrics["silver/size"] == 3
    assert metrics["silver/score_mean"] == pytest.approx(5 / 9)
    assert metrics["silver/softened_share"] == pytest.approx(1 / 3)
    assert [metrics[f"silver/score_bin_{name}"] for name in ("0", "0.33", "0.67", "1")] == pytest.approx(
        [1 / 3, 0, 1 / 3, 1 / 3]
    )
    assert metrics["rollout/searches"] == 1
    assert metrics["rollout/tokens"] == pytest.approx(12.0)
    assert metrics["rollout/action_tokens"] == pytest.approx(4.0)
    assert metrics["rollout/tokens_sampled"] == 12
    assert metrics["rollout/tokens_reused"] == 0
    assert metrics["rollout/high_ppl_ratio"] == 0
    assert metrics["policy/ppl"] == pytest.approx(2.0)
    assert metrics["policy/token_probability"] == pytest.approx(0.5)


def test_masses_follow_credit_that_differs_from_token_to_token() -> None:
    before = [row(1, 1, 1), row(-1, -1, -1, -1), row(0, 0, 0, 0, 0)]
    # As of a critic: r0's final token is blamed, r1's search is praised on one token.
    after = [row(0.5, 0.25, -0.25), row(0.25, -0.75, -1, -1), row(0, 0, 0, 0, 1)]
    metrics = group_metrics([golden_group()], [before], [after], [[[1.0], [2 / 3], [0.0]]], [frozenset("abc")])
    assert metrics["advantage/neg_pos_ratio"] == pytest.approx((0.25 + 0.75 + 2) / (0.5 + 0.25 + 0.25 + 1))
    assert metrics["advantage/neg_pos_ratio_final"] == pytest.approx((0.25 + 2) / 1)
    assert metrics["advantage/neg_pos_ratio_before"] == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("after", "softened"),
    [
        ((-1 / 3, -1 / 3), 1 / 3),  # -1 x (1 - 2/3)
        ((-1.0, -1.0), 0.0),
        ((-0.25, -0.25), 0.0),  # milder, but of another making: a critic's
        ((0.5, 0.5), 0.0),
    ],
)
def test_softened_is_what_the_soft_penalty_made_of_it(after: tuple[float, float], softened: float) -> None:
    before = [row(1, 1, 1), row(-1, -1, -1, -1), row(0, 0, 0, 0, 0)]
    credit = [before[0], row(*after, -1, -1), before[2]]
    metrics = group_metrics([golden_group()], [before], [credit], [[[1.0], [2 / 3], [0.0]]], [frozenset("abc")])
    assert metrics["silver/softened_share"] == pytest.approx(softened)


def test_what_is_undefined_is_absent_and_nothing_is_nan() -> None:
    group = Group(Question("q", "?", ("x",)), (trajectory(f1=0, form=0, answer=None),))
    metrics = group_metrics([group], [[row()]], [[row()]], [[[]]], [frozenset()])
    absent = {"advantage/neg_pos_ratio", "silver/score_mean", "silver/size", "policy/ppl", "silver/softened_share"}
    assert not absent & metrics.keys()
    assert metrics["silver/empty_share"] == 1
    assert metrics["advantage/zero_share"] == 1
    assert all(math.isfinite(value) for value in metrics.values())
    assert group_metrics([], [], [], [], []) == {}


def test_rollouts_that_the_environment_failed_are_counted_and_left_out() -> None:
    good = trajectory(turn(TurnKind.ANSWER, 1), f1=1.0)
    failed = trajectory(turn(TurnKind.SEARCH, 1), f1=0.0, failed=True)
    group = Group(Question("q", "?", ("x",)), (good, failed))
    credit = [row(1), row(-5)]
    metrics = group_metrics([group], [credit], [credit], [[[], []]], [frozenset()])
    assert metrics["rollout/infra_failed"] == 0.5
    assert metrics["reward/mean"] == 1.0
    assert metrics["advantage/neg_pos_ratio"] == 0.0


def test_the_last_turn_is_no_intermediate_query_even_when_it_searches() -> None:
    group = Group(Question("q", "?", ("x",)), (trajectory(turn(TurnKind.SEARCH, 2, ("a",)), f1=0.0),))
    metrics = group_metrics([group], [[row(-1, -1)]], [[row(-1, -1)]], [[[]]], [frozenset({"a"})])
    assert "advantage/penalised_all_silver" not in metrics
    assert "advantage/penalised_some_silver" not in metrics
    assert metrics["rollout/searches"] == 1


def test_calls_are_counted_by_tool_with_what_they_took() -> None:
    def called(*calls: CalledTool, docs: tuple[str, ...] = ("d",)) -> Turn:
        return replace(turn(TurnKind.SEARCH, 2, docs), called=calls)

    search = [CalledTool("search", seconds=seconds) for seconds in (0.1, 0.3)]
    add = CalledTool("add", "3", seconds=2.0)
    one = Trajectory(np.zeros(1, np.int64), (called(search[0]), called(search[1], add)), "a", 1, 1, 1)
    other = Trajectory(np.zeros(1, np.int64), (turn(TurnKind.ANSWER, 1),), "a", 1, 1, 1)
    assert tool_metrics([one, other]) == {
        "tool/add_calls": 0.5,
        "tool/add_tokens": 1.5,  # half of what two calls were answered with
        "time/tool_add_s": 2.0,
        "tool/search_calls": 1.0,
        "tool/search_tokens": pytest.approx((3 + 1.5) / 2),
        "time/tool_search_s": pytest.approx(0.2),
    }
    assert tool_metrics([other]) == {}
