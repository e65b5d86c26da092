"""A study file becomes runs; what is wrong with it is said in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calibadv.lab.settings import LabRun
from calibadv.lab.study import load_study, run_study

ROOT = Path(__file__).parents[2]


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_byte_order_mark_before_a_study_is_none_of_its_keys(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, '\ufeffname = "x"\nseeds = [0]\n[[cell]]\nname = "GRPO"\n'))
    assert [planned.cell for planned in study.runs] == ["GRPO"]


def test_cells_vary_and_seeds_come_first(tmp_path: Path) -> None:
    study = load_study(
        written(
            tmp_path,
            """
            name = "x"
            seeds = [0, 1]
            [run]
            steps = 5
            [[cell]]
            name = "GRPO"
            [[cell]]
            name = "neg"
            method = "scaled"
            seeds = [1]
            vary = { "params.negative" = [0.5, 2.0], top_p = [0.9] }
            [[cell]]
            name = "rate {lr:g}, clip {clip}"
            seeds = [1]
            vary = { lr = [2e-4], clip = [0.2] }
            """,
        )
    )
    assert [(p.cell, p.run.seed) for p in study.runs] == [
        ("GRPO", 0),
        ("GRPO", 1),
        ("neg negative=0.5 top_p=0.9", 1),
        ("neg negative=2.0 top_p=0.9", 1),
        ("rate 0.0002, clip 0.2", 1),
    ]
    assert study.runs[3].run.params == {"negative": 2.0}
    assert study.runs[3].run.steps == 5
    assert study.runs[3].folder == "neg-negative=2.0-top_p=0.9-s1"


def test_a_task_brings_its_limits_unless_they_are_given() -> None:
    assert (LabRun().max_searches, LabRun().max_turn_tokens) == (4, 110)
    long = LabRun(task="long-failures", max_searches=2)
    assert (long.max_searches, long.max_turn_tokens) == (2, 200)
    assert LabRun.model_validate_json(long.model_dump_json()) == long
    assert LabRun.model_validate_json("{}") == LabRun()  # what was written before there were tasks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 'x'\nseeds = []\n[[cell]]\nname = 'a'", "seeds"),
        ("name = 'x'\nseeds = [0]\n[[cell]]\nname = 'a'\nmethod = 'grpoo'", "cell 'a'.*did you mean 'grpo'"),
        ("name = 'x'\nseeds = [0]\n[[cell]]\nname = 'a'\nlearning = 1", "learning"),
        ("name = 'x'\nseeds = [0]\n[[cell]]\nname = 'a'\ntask = 'longer'", "'plain' or 'long-failures'"),
        ("name = 'x'\nseeds = [0]\n[[cell]]\nname = 'a'\n[[cell]]\nname = 'a'", "two runs are called 'a-s0'"),
        ("name = '../x'\nseeds = [0]\n[[cell]]\nname = 'a'", "name"),
        ("name = 'x'\nseeds = [0]\n[[cell]]\nname = 'a {lr}'\nvary = {clip = [0.1]}", "braces of what it varies: clip"),
        ("name = ", "study.toml"),
    ],
)
def test_a_wrong_study_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        load_study(written(tmp_path, text))


def test_a_study_is_made_once_and_what_fails_is_told(tmp_path: Path) -> None:
    tiny = "steps = 1\nquestions = 1\nsamples = 2\nupdates = 1\nevaluation_questions = 1"
    path = written(tmp_path, f"name = 'x'\nseeds = [0]\n[run]\n{tiny}\n[[cell]]\nname = 'a'\n[[cell]]\nname = 'b'")
    study = load_study(path)
    (tmp_path / "runs" / "b-s0").mkdir(parents=True)
    (tmp_path / "runs" / "b-s0" / "settings.json").write_text('{"steps": 9}')
    made = {m.planned.cell: m for m in run_study(study.runs, tmp_path / "runs", jobs=1)}
    assert (made["a"].steps, made["a"].error) == (1, "")
    assert "other settings" in made["b"].error


@pytest.mark.parametrize("path", sorted((ROOT / "workflows" / "studies").glob("lab-*.toml")), ids=lambda p: p.name)
def test_every_shipped_study_can_be_planned(path: Path) -> None:
    assert load_study(path).runs


def test_runs_get_huge_pages_unless_the_user_has_said_something_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the environment that their processes start with: glibc reads it once."""
    monkeypatch.setenv("GLIBC_TUNABLES", "mine")
    assert list(run_study([], tmp_path)) == []
    assert os.environ["GLIBC_TUNABLES"] == "mine"
    monkeypatch.delenv("GLIBC_TUNABLES")
    assert list(run_study([], tmp_path)) == []
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
