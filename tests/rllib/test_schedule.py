"""The run as rows: what is evaluated by which version, and in which order everything happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice

import pytest

from calibadv.cluster.rows import RolloutRow
from calibadv.config import Config
from calibadv.data.order import epoch_order
from calibadv.rllib.schedule import evaluation_versions, is_sampled_step, planned, schedule
from calibadv.types import Phase, Question
from tests.build import configured

TRAIN = [Question(f"train/{i}", f"train {i}?", ("yes",)) for i in range(10)]
TEST = [Question(f"test/{i}", f"test {i}?", ("yes",)) for i in range(5)]


def config(*overrides: str) -> Config:
    small = ("--data.questions_per_step=3", "--rollout.samples=2", "--learner.minibatch_rollouts=6", "--run.steps=4")
    return configured(*small, *overrides)


def ids(rows: Iterable[RolloutRow]) -> list[str]:
    return [row.question.id for row in rows]


def training(rows: Iterable[RolloutRow]) -> list[RolloutRow]:
    return [row for row in rows if row.phase is Phase.TRAIN]


@pytest.mark.parametrize(
    ("steps", "every", "versions"),
    [
        (4, "none", [0, 4]),
        (4, "2", [0, 2, 4]),
        (5, "2", [0, 2, 4, 5]),
        (4, "4", [0, 4]),
        (4, "9", [0, 4]),
        (1, "1", [0, 1]),
    ],
)
def test_versions_before_between_and_after_are_evaluated_once(steps: int, every: str, versions: list[int]) -> None:
    assert evaluation_versions(config(f"--run.steps={steps}", f"--evaluation.every={every}")) == versions


def test_all_test_questions_before_and_after_and_the_first_few_in_between() -> None:
    rows = list(schedule(config("--evaluation.every=2", "--evaluation.questions=2"), TRAIN, TEST))
    asked = {
        version: [r.question for r in rows if r.phase is Phase.EVAL and r.step == version] for version in (0, 2, 4)
    }
    assert asked == {0: TEST, 2: TEST[:2], 4: TEST}


def test_fewer_test_questions_than_an_evaluation_in_between_asks_are_all_asked() -> None:
    plan = planned(config("--evaluation.every=2", "--evaluation.questions=9"), test=5)
    assert [count for (phase, _), count in plan.items() if phase is Phase.EVAL] == [5, 5, 5]


def test_rows_come_in_the_order_in_which_they_happen() -> None:
    settings = config("--evaluation.every=2", "--evaluation.questions=2")
    rows = list(schedule(settings, TRAIN, TEST))
    parts = [(*of, len(list(members))) for of, members in groupby(rows, lambda row: (row.phase, row.step))]
    assert parts == [(*of, count) for of, count in planned(settings, len(TEST)).items()]
    assert parts == [
        ("eval", 0, 5),
        ("train", 0, 3),
        ("train", 1, 3),
        ("eval", 2, 2),
        ("train", 2, 3),
        ("train", 3, 3),
        ("eval", 4, 5),
    ]


def test_a_version_is_evaluated_before_its_step_trains_on() -> None:
    # A worker serves rows in this order: a training row of step 2 first would let version 3 be made meanwhile.
    rows = list(schedule(config("--evaluation.every=2"), TRAIN, TEST))
    phases_of_step_2 = [row.phase for row in rows if row.step == 2]
    assert phases_of_step_2 == [Phase.EVAL] * 5 + [Phase.TRAIN] * 3
    assert all(row.version == row.step for row in rows if row.phase is Phase.EVAL)
    assert all(row.version is None for row in training(rows))


def test_a_step_that_may_be_sampled_ahead_goes_before_the_evaluation_that_must_wait() -> None:
    settings = config("--evaluation.every=2", "--rollout.max_staleness=1")
    T, E = Phase.TRAIN, Phase.EVAL
    # No row waits for a version that is made after it: step 2 takes version 1, its evaluation version 2.
    assert list(planned(settings, len(TEST))) == [(E, 0), (T, 0), (T, 1), (T, 2), (E, 2), (T, 3), (E, 4)]
    assert list(planned(settings, len(TEST), start=2)) == [(T, 2), (E, 2), (T, 3), (E, 4)]
    assert list(planned(settings, len(TEST), start=2, evaluated=True)) == [(T, 2), (T, 3), (E, 4)]


def test_training_steps_read_the_epochs_of_the_seed_with_each_question_at_its_index() -> None:
    rows = training(schedule(config("--run.seed=6"), TRAIN, TEST))
    epochs = [*epoch_order(TRAIN, 0, 6), *epoch_order(TRAIN, 1, 6)]
    assert [row.question for row in rows] == epochs[:12]
    assert [(row.step, row.index) for row in rows] == [(step, index) for step in range(4) for index in range(3)]


def test_an_epoch_asks_every_question_once_and_a_seed_is_another_order() -> None:
    def asked(seed: int) -> list[str]:
        return ids(training(schedule(config("--run.steps=3", f"--run.seed={seed}"), TRAIN[:9], TEST)))

    assert sorted(asked(0)) == sorted(q.id for q in TRAIN[:9])
    assert asked(0) != asked(1)
    assert asked(0) == asked(0)


def test_an_epoch_is_ordered_once_and_only_when_its_first_question_is_due() -> None:
    # The paper's size: 205 steps of 512 questions from 100,000, so that step 195 crosses into the second epoch.
    train = [Question(f"train/{i}", "who?", ("yes",)) for i in range(100_000)]
    ordered: list[int] = []

    def order(questions: Sequence[Question], epoch: int, seed: int) -> list[Question]:
        ordered.append(epoch)
        return epoch_order(questions, epoch, seed)

    settings = config(
        "--run.steps=205", "--data.questions_per_step=512", "--rollout.samples=5", "--learner.minibatch_rollouts=1280"
    )
    rows = schedule(settings, train, TEST, order=order)
    assert ordered == []
    evaluation, first_step = list(islice(rows, len(TEST))), list(islice(rows, 512))
    assert [row.phase for row in evaluation] == [Phase.EVAL] * len(TEST)
    assert [row.question for row in first_step] == epoch_order(train, 0, 0)[:512]
    assert ordered == [0]
    assert sum(1 for _ in rows) == 204 * 512 + len(TEST)
    assert ordered == [0, 1]


def test_rollouts_of_the_first_groups_of_some_steps_are_written_out() -> None:
    settings = config("--run.steps=8", "--tracking.sample_every=3", "--tracking.sampled_rollouts=2")
    assert [step for step in range(8) if is_sampled_step(settings, step)] == [0, 3, 6, 7]  # and the last
    sampled = [(row.phase, row.step, row.index) for row in schedule(settings, TRAIN, TEST) if row.sampled]
    assert sampled == [(Phase.TRAIN, step, index) for step in (0, 3, 6, 7) for index in (0, 1)]


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("evaluated", [True, False])
def test_a_run_that_goes_on_has_the_rows_that_were_left(start: int, evaluated: bool) -> None:
    # Ten questions, three a step: the fourth step crosses into the second epoch.
    settings = config("--evaluation.every=2", "--evaluation.questions=2", "--run.seed=4")
    left = [row for row in schedule(settings, TRAIN, TEST) if row.step >= start]
    if evaluated:
        left = [row for row in left if not (row.phase is Phase.EVAL and row.step == start)]
    assert list(schedule(settings, TRAIN, TEST, start=start, evaluated=evaluated)) == left
