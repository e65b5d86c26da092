"""Runs beside each other: seeds of a method are one cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.report.reading import read_run
from calibadv.report.several import cells_of
from tests.report.made_up import history, write_run


def test_runs_that_differ_by_their_seed_are_one_cell_with_a_band(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{name}-{seed}", history(4, eval__f1=f1), method__name=name, run__seed=seed)
        for name, seed, f1 in (("grpo", 0, 0.4), ("calibadv", 0, 0.8), ("grpo", 1, 0.6))
    ]
    grpo, calibadv = cells_of([read_run(run) for run in runs])
    assert (grpo.name, grpo.runs, grpo.seeds) == ("grpo", ("grpo-0", "grpo-1"), (0, 1))
    assert grpo.f1 is not None
    assert (grpo.f1.mean, grpo.f1.std) == (pytest.approx(0.5), pytest.approx(0.1 * 2**0.5))
    assert grpo.curves["eval/f1"][-1] == pytest.approx([4, 0.5, 0.5 - 0.1 * 2**0.5, 0.5 + 0.1 * 2**0.5], rel=1e-4)
    assert calibadv.f1 is not None
    assert (calibadv.f1.mean, calibadv.f1.std) == (0.8, None)
    assert (calibadv.tokens is not None, calibadv.tokens and calibadv.tokens.mean) == (True, 4000)
    assert calibadv.wall_s is None  # it has not finished
    assert (grpo.unfinished, calibadv.unfinished) == (2, 1)
    done = write_run(tmp_path / "done", history(4), method__name="grpo", run__seed=2, summary={"wall_s": 42})
    (mixed,) = cells_of([read_run(runs[0]), read_run(done)])
    assert (len(mixed.runs), mixed.unfinished) == (2, 1)


def test_parameters_on_which_runs_of_a_method_differ_are_in_the_cells_names(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"l{lam}", history(2), method__name="calibadv", method__params__lam=lam)
        for lam in (1.0, 2.0)
    ]
    assert [cell.name for cell in cells_of([read_run(run) for run in runs])] == ["calibadv lam=1.0", "calibadv lam=2.0"]


def test_runs_that_differ_in_what_decides_the_result_are_other_cells_and_places_are_not(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"r{i}", history(2), run__seed=i, learner__lr=lr, tracking__experiment=f"e{i}")
        for i, lr in enumerate((1e-5, 2e-5, 1e-5))
    ]
    cells = cells_of([read_run(run) for run in runs])
    assert [(cell.name, cell.seeds) for cell in cells] == [
        ("calibadv learner.lr=1e-05", (0, 2)),
        ("calibadv learner.lr=2e-05", (1,)),
    ]
