"""The laboratory: `python workflows/lab.py STUDY.toml [--jobs 2] [--report]`.

Makes every run of the study that is not finished yet, on the CPU, minutes each; called again it goes on where it
stopped. Finished runs join the study's table in `--results`, and what stands there is not made again. `--report` makes
no run: it writes table and figure of what there is. What a study file holds: `calibadv/lab/study.py`; examples:
`workflows/studies/lab-*.toml`.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("lab")  # before what takes seconds to import

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from calibadv.lab.drift import drift, frozen_credits
from calibadv.lab.figures import draw_curves, draw_survival
from calibadv.lab.laboratory import Laboratory
from calibadv.lab.language import language
from calibadv.lab.results import (
    against,
    cell_table,
    is_stored,
    markdown,
    read_store,
    run_figures,
    with_finished,
    with_shared,
    write_store,
)
from calibadv.lab.settings import LabRun
from calibadv.lab.study import Study, load_study, run_study
from calibadv.lab.survival import EVENTS
from calibadv.lab.warm_start import make_start
from workflows.command import run_command

log = logging.getLogger("workflows.lab")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run ended. 1: some run failed. 2: the study was refused. 130: interrupted."""
    parser = argparse.ArgumentParser(
        prog="lab.py", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="the study's TOML file")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each (default 2)")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="where runs are made (default runs/lab)")
    parser.add_argument(
        "--results", type=Path, default=Path("docs/lab"), help="where tables and figures are kept (default docs/lab)"
    )
    parser.add_argument("--report", action="store_true", help="make no run, only write table and figure")
    parser.add_argument("--make-start", type=Path, metavar="FILE", help="make the policy that runs start from, again")
    parser.add_argument("--drift", action="store_true", help="which way each credit pushes the start, without a run")
    given = parser.parse_args(arguments)
    if given.make_start:
        make_start(given.make_start, lambda update, loss: log.info("update %d: %.3f nats a token", update, loss))
        return 0
    if given.drift:
        return push(given.results)
    if given.study is None:
        parser.error("a study file is needed, e.g. workflows/studies/lab-mismatch.toml")
    study = load_study(given.study)
    failed = 0 if given.report else make(study, given.folder / study.name, given.results, given.jobs)
    report(study, given.folder / study.name, given.results)
    return 1 if failed else 0


def push(results: Path, questions: int = 96, lr: float = 2e-4) -> int:
    """Writes what one summed step of each credit does to the start, with and without a truncated sampler."""
    tables = []
    fresh = Laboratory(LabRun()).sample(questions // 2, "drift fresh")
    for top_p in (1.0, 0.95):
        lab = Laboratory(LabRun(top_p=top_p))
        train = lab.sample(questions, "drift train")
        table = drift(lab.policy, train, fresh, frozen_credits(), lr, language().first_tail)
        tables.append(table.assign(top_p=top_p))
        log.info("top_p %g: %d rollouts", top_p, sum(len(group.trajectories) for group in train))
    table = pd.concat(tables).set_index("credit")
    results.mkdir(parents=True, exist_ok=True)
    table.to_csv(results / "drift.csv")
    (results / "drift.md").write_text(markdown(table), "utf-8")
    log.info("%s", markdown(table))
    return 0


def make(study: Study, folder: Path, results: Path, jobs: int) -> int:
    """Makes what the study's table lacks; returns how many runs failed."""
    store = stored(study, results)
    left = [planned for planned in study.runs if not is_stored(store, planned)]
    log.info("%s: %d of %d runs are left; %s", study.name, len(left), len(study.runs), folder)
    failed = 0
    for number, made in enumerate(run_study(left, folder, jobs=jobs), start=1):
        if made.error:
            failed += 1
            log.error("%s: %s", made.planned.folder, made.error)
            continue
        told = (number, len(left), made.planned.folder, made.steps, made.reason, made.cpu_seconds)
        log.info("%d of %d  %s  %d steps (%s), %.0f CPU seconds", *told)
    return failed


def stored(study: Study, results: Path) -> pd.DataFrame:
    """The study's table, with those of its runs that other studies have made."""
    own = results / f"{study.name}.parquet"
    return with_shared(read_store(own), study, sorted(set(results.glob("*.parquet")) - {own}))


def report(study: Study, folder: Path, results: Path) -> None:
    """Writes the study's table of runs, its figures' table and its picture."""
    store = with_finished(stored(study, results), study, folder)
    if store.empty:
        raise ValueError(f"no run of {study.name!r} has ended yet, neither in {folder} nor in {results}")
    write_store(store, results / f"{study.name}.parquet")
    figures = run_figures(store)
    text = markdown(cell_table(figures))
    if study.baseline in set(figures["cell"]):
        text += f"\nAgainst {study.baseline}, paired by seed:\n\n{markdown(against(figures, study.baseline))}"
    (results / f"{study.name}.md").write_text(text, "utf-8")
    draw_curves(store, results / f"{study.name}.png")
    if figures[list(EVENTS)].notna().any(axis=None):
        draw_survival(figures, results / f"{study.name}-survival.png")
    log.info("%s\n%s", results / f"{study.name}.md", text)


if __name__ == "__main__":
    sys.exit(run_command(main))
