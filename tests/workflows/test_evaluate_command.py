"""The command line of evaluate.py: what is ours, what is an override, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workflows.evaluation_options import parse_command

NEEDED = ("--set", "nq=data/nq.jsonl", "--corpus", "wiki.jsonl")


def test_models_sets_and_overrides_may_stand_in_any_order() -> None:
    command = parse_command(
        ["--rollout.engines", "2", "a", *NEEDED, "--method.params.lam=0.5", "b=runs/x", "--set", "2wiki=2.parquet"]
    )
    assert command.models == ("a", "b=runs/x")
    assert command.sets == (("nq", "data/nq.jsonl"), ("2wiki", "2.parquet"))
    assert command.overrides == {"rollout.engines": 2, "method.params.lam": 0.5}
    assert (command.corpus, command.recipe, command.out, command.questions) == ("wiki.jsonl", None, None, None)


def test_a_files_dots_make_no_override() -> None:
    command = parse_command(
        ["m", "--set=nq=data/nq.v2.jsonl", "--corpus=./c.jsonl", "--out", "o.d", "--questions", "5"]
    )
    assert (command.sets, command.corpus) == ((("nq", "data/nq.v2.jsonl"),), "./c.jsonl")
    assert (command.out, command.questions, command.overrides) == (Path("o.d"), 5, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m", "--set", "nq.jsonl", "--corpus", "c"], "--set 'nq.jsonl': expected NAME=FILE"),
        (["m", "--set", "nq=", "--corpus", "c"], "--set 'nq=': expected NAME=FILE"),
        (["m", "--set", "a/b=f", "--corpus", "c"], "--set 'a/b': expected letters"),
        (["m", "--set", "..=f", "--corpus", "c"], "--set '..': expected letters"),
        (["m", "--set", "mean=f", "--corpus", "c"], "--set mean: the table has a column of that name"),
        (["m", *NEEDED, "--set", "nq=other"], "--set nq is given twice, 'data/nq.jsonl' and 'other'"),
        (["m", *NEEDED, "--questions", "0"], "--questions is 0: expected at least 1"),
        (["m", *NEEDED, "--run.seed"], "--run.seed has no value"),
        (["m", *NEEDED, "--data.test", "x"], "--data.test means nothing here: questions come from --set"),
        (["m", *NEEDED, "--model.path", "x"], "--model.path means nothing here: models are named without a flag"),
        (["m", *NEEDED, "--lr", "1"], "--lr names no section (did you mean 'learner.lr'?): use --section.key value"),
        (["m", *NEEDED, "--learner.lr=1"], "--learner.lr means nothing here: an evaluation learns nothing"),
    ],
)
def test_what_cannot_be_is_refused_with_words(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_command(arguments)


@pytest.mark.parametrize("arguments", [["m", "--corpus", "c"], ["m", "--set", "a=b"], list(NEEDED)])
def test_what_is_missing_ends_the_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        parse_command(arguments)
    assert exit_of.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err


def test_settings_that_speed_things_up_are_overrides_like_any_other() -> None:
    assert parse_command(["m", *NEEDED, "--model.dtype", "float32"]).overrides == {"model.dtype": "float32"}
