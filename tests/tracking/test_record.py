"""One conversion of a rollout, three readers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from calibadv.tracking.record import CallRecord, RolloutRecord, record_rollout
from calibadv.tracking.traces import turn_spans
from calibadv.types import CalledTool
from tests.build import group, trajectory
from tests.tracking.fake_run import record


def test_a_turn_carries_think_query_documents_score_and_both_advantages() -> None:
    search = record().turns[0]
    assert (search.kind, search.think, search.query, search.tokens) == ("search", "Who made it?", "q", 2)
    assert (search.score, search.advantage_before, search.advantage) == (0.5, -1.0, -0.5)
    assert [(doc.title, doc.silver) for doc in search.documents] == [("The Salt Road", True), ("d9", False)]


def test_the_final_step_has_an_answer_and_no_score() -> None:
    answer = record().turns[1]
    assert (answer.think, answer.answer, answer.score, answer.advantage) == ("She was born there.", "Ada", None, -1.0)


def test_a_record_survives_json() -> None:
    assert RolloutRecord.from_dict(json.loads(json.dumps(record().to_dict()))) == record()
    assert RolloutRecord.from_dict({**record().to_dict(), "written_ms": 1}) == record()


def test_what_tools_said_is_kept_and_a_search_s_documents_are_not_said_twice() -> None:
    one = trajectory(1.0, [1, 1, 1])
    calls = (CalledTool("search"), CalledTool("add", "42", seconds=0.5))
    one = replace(one, turns=(replace(one.turns[0], called=calls), *one.turns[1:]))
    made = record_rollout(group(one), 0, step=1)
    assert [turn.calls for turn in made.turns] == [(CallRecord("add", "42"),), (), ()]
    assert RolloutRecord.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    (called,) = turn_spans("t", (replace(made.turns[0], kind="call"),), 0)
    assert json.loads(called["attributes"]["mlflow.spanOutputs"]) == [{"tool": "add", "text": "42"}]
    assert json.loads(called["attributes"]["mlflow.spanType"]) == "TOOL"


def test_a_rollout_s_advantage_is_a_mean_over_tokens_and_its_silver_score_one_over_searches() -> None:
    made = record()
    assert made.silver_score == 0.5
    assert made.advantage == pytest.approx((2 * -0.5 + 3 * -1) / 5)
    without = replace(made, turns=tuple(replace(turn, score=None, advantage=None) for turn in made.turns))
    assert (without.silver_score, without.advantage) == (None, None)


def test_a_rollout_without_credit_has_no_advantages() -> None:
    turns = record_rollout(group(trajectory(1.0, [1, 1])), 0, step=1).turns
    assert {turn.advantage for turn in turns} == {turn.score for turn in turns} == {None}


def test_scores_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 1 entries .* got 2"):
        record_rollout(group(trajectory(1.0, [1, 1])), 0, step=1, scores=[1.0, 1.0])
