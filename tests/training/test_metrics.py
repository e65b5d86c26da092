"""What a step is reported as, by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from calibadv.evaluation.figures import figures
from calibadv.evaluation.prediction import Prediction, predict, read_predictions, write_predictions
from calibadv.methods import METHODS, Method, make_method
from calibadv.methods.rows import step_credit, step_facts
from calibadv.rllib.env_runner import StepSample
from calibadv.tracking.run_folder import RunFolder
from calibadv.training.metrics import (
    evaluation_metrics,
    most_changed,
    predictions,
    sample_metrics,
    sampled_records,
    time_metrics,
)
from calibadv.types import Credit, Document, Trajectory, TurnKind
from tests.build import QUESTION, group, trajectory

# Rewards 1, 0, 0.5 -> advantages +1, -1, 0. The second found two of the first one's three documents.
GOLDEN = group(
    trajectory(1.0, [2, 1], [["s1", "s2", "s3"]]),
    trajectory(0.0, [2, 2], [["s1", "s2", "x"]]),
    trajectory(0.5, [2, 3], [["y"]]),
)
EQUAL = group(*(trajectory(0.0, [1, 1]) for _ in range(3)), question=replace(QUESTION, id="test/equal"))


def credit_of(method: Method) -> dict[str, Credit]:
    return {g.question.id: method.advantages(g) for g in (EQUAL, GOLDEN)}


def step() -> StepSample:
    return StepSample(
        groups=[EQUAL, GOLDEN],
        sampled=[1],
        documents={"s1": Document("s1", "One", "The first.")},
        infra_failed=2,
        dropped_groups=1,
        counts=Counter({"judge/calls": 3}),
        engine_rows=Counter({"e0": 2, "e1": 1}),
    )


def test_a_steps_metrics_by_hand() -> None:
    method = METHODS["calibadv"]()
    metrics = sample_metrics(step(), method, credit_of(method))
    assert metrics["judge/calls"] == 3
    assert metrics["rollout/infra_failed_count"] == 2
    assert metrics["rollout/dropped_groups"] == 1
    assert metrics["rollout/engine_share_max"] == pytest.approx(2 / 3)
    assert metrics["reward/mean"] == pytest.approx(1.5 / 6)
    assert metrics["silver/empty_share"] == 0.5
    assert metrics["silver/size"] == 3
    assert metrics["advantage/zero_share"] == 0.5
    # Before: positive tokens 2 + 1 at +1, negative 2 + 2 at -1. After: 2 at +1 and 1 at +2; 2 at -1/3 and 2 at -1.
    assert metrics["advantage/neg_pos_ratio_before"] == pytest.approx(4 / 3, rel=1e-4)
    assert metrics["advantage/neg_pos_ratio"] == pytest.approx((2 / 3 + 2) / 4, rel=1e-4)
    assert metrics["advantage/neg_pos_ratio_final"] == pytest.approx(1, rel=1e-4)  # rebalanced


def test_tokens_of_groups_that_were_not_chosen_were_sampled_too() -> None:
    method = METHODS["grpo"]()
    sample = step()
    before = sample_metrics(sample, method, credit_of(method))["rollout/tokens_sampled"]
    sample.counts.update({"rollout/spare_tokens": 7})
    assert sample_metrics(sample, method, credit_of(method))["rollout/tokens_sampled"] == before + 7


def test_staleness_is_the_mean_age_of_the_policies_that_sampled_the_step() -> None:
    method = METHODS["grpo"]()
    assert sample_metrics(step(), method, credit_of(method))["rollout/staleness"] == 0
    stale = replace(step(), step=1, engine_deaths=2)
    fresh = tuple(replace(trajectory, policy_version=1) for trajectory in EQUAL.trajectories)
    stale.groups[0] = replace(EQUAL, trajectories=fresh)
    assert len(EQUAL.trajectories) == len(GOLDEN.trajectories)
    metrics = sample_metrics(stale, method, credit_of(method))
    assert (metrics["rollout/staleness"], metrics["rollout/engine_deaths"]) == (0.5, 2)


def test_grpo_has_one_ratio_before_and_after() -> None:
    method = METHODS["grpo"]()
    metrics = sample_metrics(step(), method, credit_of(method))
    assert metrics["advantage/neg_pos_ratio"] == metrics["advantage/neg_pos_ratio_before"]


def scaled_credit_of(method: Method) -> dict[str, Credit]:
    facts = step_facts([EQUAL, GOLDEN])
    return {g.question.id: step_credit(g, method, facts) for g in (EQUAL, GOLDEN)}


def test_credit_on_the_steps_scale_is_told_beside_a_base_of_the_same_scale() -> None:
    grpo, calibadv = (make_method(name, {"baseline": "reinforce++"}) for name in ("grpo", "calibadv"))
    plain = sample_metrics(step(), grpo, scaled_credit_of(grpo))
    assert plain["silver/softened_share"] == 0
    for record in sampled_records(step(), grpo, scaled_credit_of(grpo), step=0):
        assert [turn.advantage for turn in record.turns] == [turn.advantage_before for turn in record.turns]
    # Of six searches GOLDEN's second is blamed and found silver documents; rewards deviate by 0.316 over the step.
    assert sample_metrics(step(), calibadv, scaled_credit_of(calibadv))["silver/softened_share"] == pytest.approx(1 / 6)
    search = sampled_records(step(), calibadv, scaled_credit_of(calibadv), step=0)[1].turns[0]
    assert search.advantage_before == pytest.approx(-0.5 / 0.1**0.5, rel=1e-4)
    assert search.advantage == pytest.approx(-0.5 / 3 / 0.1**0.5, rel=1e-4)


def test_time_that_no_activity_took_is_other() -> None:
    metrics = time_metrics({"rollout": 5.0, "learn": 3.0, "sync": 0.5}, 10.0, 2000)
    assert metrics == {
        "time/rollout_s": 5.0,
        "time/learn_s": 3.0,
        "time/sync_s": 0.5,
        "time/eval_s": 0.0,
        "time/other_s": 1.5,
        "time/step_s": 10.0,
        "rollout/tokens_per_s": 200.0,
    }


def test_other_is_never_negative_and_no_time_has_no_speed() -> None:
    assert time_metrics({"rollout": 2.0}, 1.9, 10)["time/other_s"] == 0
    assert "rollout/tokens_per_s" not in time_metrics({}, 0.0, 10)


def test_evaluation_means_over_questions_by_hand() -> None:
    right = trajectory(1.0, [3, 2, 1])  # two searches; answers "Ada" as the golden answer does
    half = replace(trajectory(0.5, [4]), answer="Ada King", format_reward=0.0)
    silent = replace(trajectory(0.0, [2, 2]), answer=None)
    metrics = evaluation_metrics(predictions([group(right), group(half), group(silent), group(right)]))
    assert metrics == {
        "eval/f1": 2.5 / 4,
        "eval/em": 2 / 4,
        "eval/format": 3 / 4,
        "eval/searches": (2 + 0 + 1 + 2) / 4,
        "eval/action_tokens": (6 + 4 + 4 + 6) / 4,
        "eval/questions": 4,
    }


def test_questions_of_several_data_sets_have_an_f1_each_and_their_mean() -> None:
    def answered(question_id: str, f1: float) -> Prediction:
        return predict(replace(QUESTION, id=question_id), trajectory(f1, [2, 1]))

    nq = [answered(f"nq/{i}", f1) for i, f1 in enumerate((1.0, 0.5, 0.0))]
    metrics = evaluation_metrics([*nq, answered("musique/2hop/7", 0.25)])
    by_set = {name: value for name, value in metrics.items() if name.startswith("eval/f1_")}
    assert by_set == {"eval/f1_musique": 0.25, "eval/f1_nq": 0.5, "eval/f1_mean": 0.375}
    assert metrics["eval/f1"] == 1.75 / 4
    assert "eval/f1_nq" not in evaluation_metrics(nq)


def test_a_runs_evaluation_and_a_separate_one_say_the_same_of_the_same_answers() -> None:
    rollouts = [trajectory(f1, [3, 2, 1], logprob=-f1) for f1 in (0.1, 1 / 3, 0.7, 1.0)]
    answers = predictions([group(rollout, question=replace(QUESTION, id="nq/1")) for rollout in rollouts])
    separate = figures(answers).metrics()
    for name, value in evaluation_metrics(answers).items():
        assert (
            value == separate[{"action_tokens": "tokens"}.get(name.removeprefix("eval/"), name.removeprefix("eval/"))]
        )


def test_predictions_of_a_run_are_read_as_those_of_an_evaluation(tmp_path: Path) -> None:
    answers = predictions([group(trajectory(f1, [2, 1]), question=replace(QUESTION, id=f"nq/{f1}")) for f1 in (0.5, 1)])
    with RunFolder(tmp_path / "run") as folder:
        folder.write_predictions(answer.to_dict() for answer in answers)
        assert list(read_predictions(folder.predictions).values()) == answers
    write_predictions(tmp_path / "evaluated.jsonl", answers)
    assert (tmp_path / "evaluated.jsonl").read_bytes() == folder.predictions.read_bytes()


def test_a_search_that_was_not_carried_out_counts_as_the_policys_search() -> None:
    last = trajectory(0.0, [2, 2])
    forced: Trajectory = replace(last, turns=(*last.turns[:1], replace(last.turns[1], kind=TurnKind.SEARCH)))
    assert evaluation_metrics(predictions([group(forced)]))["eval/searches"] == 2


def test_records_are_the_sampled_groups_with_credit_before_and_after() -> None:
    records = sampled_records(step(), METHODS["calibadv"](), credit_of(METHODS["calibadv"]()), step=4)
    assert [(r.step, r.question_id, r.index, r.group_size) for r in records] == [
        (4, QUESTION.id, i, 3) for i in range(3)
    ]
    search, answer = records[1].turns
    assert search.score == pytest.approx(2 / 3)
    assert (search.advantage_before, search.advantage) == (pytest.approx(-1, rel=1e-4), pytest.approx(-1 / 3, rel=1e-4))
    assert answer.score is None
    assert [doc.silver for doc in search.documents] == [True, True, False]
    assert [doc.title for doc in search.documents] == ["One", "s2", "x"]  # without its text a document has its id


def test_the_most_changed_rollout_is_the_one_that_calibration_changed_most() -> None:
    records = sampled_records(step(), METHODS["calibadv"](), credit_of(METHODS["calibadv"]()), step=4)
    # Means over turns: the first gains 1 at its answer, the second is spared 2/3 at its search, the third nothing.
    assert most_changed(records) is records[0]
    assert most_changed(records[1:]) is records[1]
    assert most_changed([]) is None
