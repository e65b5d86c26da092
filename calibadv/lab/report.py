"""What a laboratory's study leaves behind: tables and pictures of the runs that have ended."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from calibadv.files import write_text
from calibadv.lab.contrasts import against
from calibadv.lab.drift import drift, frozen_credits
from calibadv.lab.early_share import area_for_collapse, by_cell, early_shares
from calibadv.lab.figures import MANY, draw_cells, draw_curves, draw_survival
from calibadv.lab.laboratory import Laboratory
from calibadv.lab.language import language
from calibadv.lab.results import (
    cell_table,
    markdown,
    of_study,
    read_store,
    run_figures,
    with_finished,
    with_shared,
    write_store,
)
from calibadv.lab.settings import LabRun
from calibadv.lab.signals import courses, signal_table
from calibadv.lab.study import Study
from calibadv.lab.survival import EVENTS
from calibadv.lab.watched import stored_runs, watched_table

log = logging.getLogger(__name__)

SIGNALS = 12  # the rows of a table of signals
DRIFT_QUESTIONS, DRIFT_LR = 256, 2e-4
AGAIN = "signal.parquet"  # runs of other tables once more, most of them their first steps alone


def stored(study: Study, results: Path) -> pd.DataFrame:
    """The study's table, with those of its runs that other studies have made."""
    own = results / f"{study.name}.parquet"
    return with_shared(read_store(own), study, sorted(set(results.glob("*.parquet")) - {own}))


def write_report(study: Study, folder: Path, results: Path) -> str:
    """The study's figures as a table. Writes it, the table of runs and the pictures."""
    store = with_finished(stored(study, results), study, folder)
    made = of_study(store, study)
    if made.empty:
        raise ValueError(f"no run of {study.name!r} has ended yet, neither in {folder} nor in {results}")
    write_store(store, results / f"{study.name}.parquet")
    figures = run_figures(made)
    text = markdown(cell_table(figures))
    for baseline in study.baselines:
        if baseline in set(figures["cell"]):
            text += f"\nAgainst {baseline}, paired by seed:\n\n{markdown(against(figures, baseline))}"
    write_text(results / f"{study.name}.md", text)
    if figures["cell"].nunique() > MANY:
        draw_cells(figures, results / f"{study.name}.png")
    else:
        draw_curves(made, figures, results / f"{study.name}.png")
        if figures[list(EVENTS)].notna().any(axis=None):
            draw_survival(figures, results / f"{study.name}-survival.png")
    return text


def write_watched(results: Path) -> str:
    """What the sentinel would have said of all stored runs, for several limits. Writes watched.md."""
    text = markdown(watched_table(stored_runs(_tables(results))))
    write_text(results / "watched.md", text)
    return text


def write_signals(results: Path) -> str:
    """For each event the signals of all stored runs that come before most of its runs. Writes signals.md."""
    runs = courses(_tables(results))
    parts = [f"Before {name}:\n\n{markdown(signal_table(runs, event).head(SIGNALS))}" for event, name in EVENTS.items()]
    text = "\n".join(parts)
    if (again := results / AGAIN).exists():
        shares = early_shares(again, _tables(results))
        told = markdown(by_cell(shares))
        text += f"\nThe share of signal in the first 25 steps, and how many came to what in the end:\n\n{told}"
        text += f"\nt tells GRPO's runs on policy that collapse from the others: area {area_for_collapse(shares):.2f}\n"
    write_text(results / "signals.md", text)
    return text


def write_drift(results: Path) -> str:
    """The table of what a step of each credit does to the start, with and without a truncated sampler.

    Writes drift.csv and drift.md.
    """
    tables = []
    fresh = Laboratory(LabRun()).sample(DRIFT_QUESTIONS // 4, "drift fresh")
    for top_p in (1.0, 0.95):
        lab = Laboratory(LabRun(top_p=top_p))
        train = lab.sample(DRIFT_QUESTIONS, "drift train")
        table = drift(lab.policy, train, fresh, frozen_credits(), DRIFT_LR, language().first_tail)
        tables.append(table.assign(top_p=top_p))
        log.info("top_p %g: %d rollouts", top_p, sum(len(group.trajectories) for group in train))
    table = pd.concat(tables).set_index("credit")
    results.mkdir(parents=True, exist_ok=True)
    table.to_csv(results / "drift.csv")
    text = markdown(table)
    write_text(results / "drift.md", text)
    return text


def _tables(results: Path) -> list[Path]:
    """Every table of runs but those made again."""
    return sorted(set(results.glob("*.parquet")) - {results / AGAIN})
