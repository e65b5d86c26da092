"""What may change between two attempts of a run, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from calibadv.checkpoints.identity import Identity, differences
from calibadv.checkpoints.progress import Best, Progress
from calibadv.config import Config
from calibadv.section import flat
from tests.build import configured

DEFAULTS = Config().flat()
DIGESTS = {"train": "aa", "test": "bb", "corpus": "cc", "model": "dd"}


def identity(*overrides: str, **digests: str) -> Identity:
    return Identity(configured(*overrides).flat(), {**DIGESTS, **digests})


def changed(then: list[str], now: list[str], **digests: str) -> list[str]:
    return differences(identity(*then), identity(*now, **digests), DEFAULTS)


def test_the_same_run_has_no_difference_also_after_a_passage_through_json() -> None:
    import json

    one = identity("--learner.betas=[0.8,0.9]", "--method.params.lam=2.0")
    again = Identity.from_dict(json.loads(json.dumps(one.to_dict())))
    assert differences(again, one, DEFAULTS) == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--run.seed=4", "run.seed was 0, now 4"),
        ("--learner.lr=1e-6", "learner.lr was 5e-07, now 1e-06"),
        ("--rollout.torch_dtype=float32", "rollout.torch_dtype was 'float64', now 'float32'"),
        ("--data.test_questions=9", "data.test_questions was not set, now 9"),
        ("--method.params.lam=2.0", "method.params.lam was not set, now 2.0"),
        ("--search.url=http://there", "search.url was '', now 'http://there'"),
    ],
)
def test_what_would_make_another_run_is_named_with_both_values(override: str, words: str) -> None:
    assert changed([], [override]) == [words]
    assert len(changed([override], [])) == 1


@pytest.mark.parametrize(
    "override",
    [
        "--rollout.engines=3",
        "--search.replicas=2",
        "--cluster.address=auto",
        "--tracking.mlflow_uri=http://there",
        "--sentinel.action=rollback",
        "--checkpoint.every=1",
        "--learner.token_budget=99",
        "--run.name=other",
        "--data.train=/moved/train.jsonl",
    ],
)
def test_what_only_says_where_and_how_may_change(override: str) -> None:
    assert changed([], [override]) == []


def test_files_are_compared_by_what_they_hold() -> None:
    (words,) = changed(["--data.train=old.jsonl"], ["--data.train=new.jsonl"], train="ee")
    assert words == "the train files hold something else than before (digest aa, now ee)"


def test_more_steps_are_fine_where_the_learning_rate_is_constant_and_only_there() -> None:
    constant = ["--learner.lr=1e-4", "--learner.lr_final=1e-4"]
    assert changed([*constant, "--run.steps=4"], [*constant, "--run.steps=8"]) == []
    (words,) = changed(["--run.steps=4"], ["--run.steps=8"])
    assert words.startswith("run.steps was 4, now 8 (the cosine")


def test_a_server_may_move_but_not_begin_or_end() -> None:
    assert changed(["--search.url=http://a"], ["--search.url=http://b"]) == []


def test_a_setting_of_another_release_counts_as_its_default() -> None:
    now = identity()
    older = Identity({k: v for k, v in now.settings.items() if k != "learner.clip"}, DIGESTS)
    assert differences(older, now, DEFAULTS) == []
    assert differences(older, identity("--learner.clip=0.3"), DEFAULTS) == ["learner.clip was 0.2, now 0.3"]


def test_nested_settings_are_flat() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "d": [2]}


def test_progress_survives_json_to_the_last_bit() -> None:
    import json

    progress = Progress(
        version=7,
        evaluations={0: {"eval/f1": 0.1 + 0.2}, 5: {"eval/f1": 1 / 3}},
        clipped={17: 3},
        sentinel={"history": [{"step": 1.0, "policy/ppl": float("inf")}], "said": [("policy/ppl", 3)], "good": None},
        example={"turns": ({"text": "x"},), "answer": None},
        best=Best(5, 1 / 3),
        wall_s=12.5,
    )
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


@pytest.mark.parametrize("values", [None, [], {}, {"version": 1}, {"best": None, "unknown": 1, "version": 2}])
def test_values_that_are_no_progress_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="no values of a run's progress"):
        Progress.from_json(values)
