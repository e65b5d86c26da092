"""The run as rows: what is evaluated by which version, and in which order everything happens."""

from __future__ import annotations

import pickle
from itertools import groupby
from typing import Any

import pytest

from calibadv.config import Config, load_config
from calibadv.data.order import questions_of_step
from calibadv.rllib.schedule import evaluation_questions, evaluation_versions, is_sampled_step, schedule
from calibadv.types import Question

TRAIN = [Question(f"train/{i}", f"train {i}?", ("yes",)) for i in range(10)]
TEST = [Question(f"test/{i}", f"test {i}?", ("yes",)) for i in range(5)]


def config(*overrides: str) -> Config:
    small = ("--data.questions_per_step=3", "--rollout.samples=2", "--learner.minibatch_rollouts=6", "--run.steps=4")
    return load_config(None, [*small, *overrides])


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [pickle.loads(row["question"]).id for row in rows]


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
    settings = config("--evaluation.every=2", "--evaluation.questions=2")
    assert [len(evaluation_questions(settings, TEST, version)) for version in (0, 2, 4)] == [5, 2, 5]
    assert evaluation_questions(settings, TEST, 2) == TEST[:2]


def test_rows_come_in_the_order_in_which_they_happen() -> None:
    rows = list(schedule(config("--evaluation.every=2", "--evaluation.questions=2"), TRAIN, TEST))
    stages = [
        (phase, step, len(list(members))) for (phase, step), members in groupby(rows, lambda r: (r["phase"], r["step"]))
    ]
    assert stages == [
        ("eval", 0, 5),
        ("train", 0, 3),
        ("train", 1, 3),
        ("eval", 2, 2),
        ("train", 2, 3),
        ("train", 3, 3),
        ("eval", 4, 5),
    ]


def test_a_version_is_evaluated_before_its_step_trains_on() -> None:
    # The stage serves rows in this order: a training row of step 2 first would let version 3 be made meanwhile.
    rows = list(schedule(config("--evaluation.every=2"), TRAIN, TEST))
    phases_of_step_2 = [row["phase"] for row in rows if row["step"] == 2]
    assert phases_of_step_2 == ["eval"] * 5 + ["train"] * 3
    assert all(row["version"] == row["step"] for row in rows if row["phase"] == "eval")
    assert all("version" not in row for row in rows if row["phase"] == "train")


def test_a_step_asks_its_questions_in_their_order_with_its_index() -> None:
    settings = config("--run.seed=4")
    rows = [row for row in schedule(settings, TRAIN, TEST) if row["phase"] == "train"]
    for step in range(4):
        members = [row for row in rows if row["step"] == step]
        assert ids(members) == [q.id for q in questions_of_step(TRAIN, step, 3, seed=4)]
        assert [row["index"] for row in members] == [0, 1, 2]


def test_an_epoch_asks_every_question_once_and_a_seed_is_another_order() -> None:
    def asked(seed: int) -> list[str]:
        settings = config("--run.steps=3", f"--run.seed={seed}")
        return ids([row for row in schedule(settings, TRAIN[:9], TEST) if row["phase"] == "train"])

    assert sorted(asked(0)) == sorted(q.id for q in TRAIN[:9])
    assert asked(0) != asked(1)
    assert asked(0) == asked(0)


def test_rollouts_of_the_first_groups_of_some_steps_are_written_out() -> None:
    settings = config("--run.steps=8", "--tracking.sample_every=3", "--tracking.sampled_rollouts=2")
    assert [step for step in range(8) if is_sampled_step(settings, step)] == [0, 3, 6, 7]  # and the last
    rows = list(schedule(settings, TRAIN, TEST))
    sampled = [(row["phase"], row["step"], row["index"]) for row in rows if row["sampled"]]
    assert sampled == [("train", step, index) for step in (0, 3, 6, 7) for index in (0, 1)]


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("evaluated", [True, False])
def test_a_run_that_goes_on_has_the_rows_that_were_left(start: int, evaluated: bool) -> None:
    # Ten questions, three a step: the fourth step crosses into the second epoch.
    settings = config("--evaluation.every=2", "--evaluation.questions=2", "--run.seed=4")
    whole = list(schedule(settings, TRAIN, TEST))
    left = [row for row in whole if row["step"] >= start]
    if evaluated:
        left = [row for row in left if not (row["phase"] == "eval" and row["step"] == start)]
    assert list(schedule(settings, TRAIN, TEST, start=start, evaluated=evaluated)) == left
