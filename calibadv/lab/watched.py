"""What the sentinel would have said of the stored runs, for factors of its three relative limits.

How many of the runs that garbled or collapsed it names, how early, and how often it is wrong. The same `alarms` as in a
training run, asked after every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from calibadv.alarms import REWARD, Limits, alarms
from calibadv.lab.results import RUN, read_store, run_figures
from calibadv.lab.survival import EVENTS

FACTORS = (1.2, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5, 3.0)
LIMITS = {"policy/ppl": "ppl_factor", "policy/entropy": "entropy_factor"}
FALLS = (0.2, 0.3, 0.4, 0.5)
OFF = {
    "high_ppl_ratio": math.inf,
    "ppl_factor": math.inf,
    "entropy_factor": math.inf,
    "entropy_floor": 0.0,
    "repetition": math.inf,
    "neg_pos_ratio": math.inf,
    "no_advantage_steps": 0,
    "reward_fall": 0.0,
}


@dataclass(frozen=True, slots=True)
class Watched:
    """A run of the table: the steps that the sentinel looks at, and when it garbled or collapsed, counted from 1."""

    history: list[dict[str, float]]  # the watched metrics of each step that measured them
    event_at: float  # nan: it did neither


def stored_runs(tables: Iterable[Path]) -> list[Watched]:
    """Every run of the tables, as the sentinel sees it."""
    runs = []
    for rows, events in distinct_runs(tables):
        steps = rows[["step", *LIMITS, REWARD]].to_dict("records")
        history = [{str(name): float(value) for name, value in step.items() if not math.isnan(value)} for step in steps]
        runs.append(Watched(history, float(pd.Series(events).min())))
    return runs


def distinct_runs(tables: Iterable[Path]) -> Iterator[tuple[pd.DataFrame, dict[str, float]]]:
    """Every run of the tables once, whatever studies share it: its rows by step, and when each of `EVENTS` came.

    Steps are counted from 1; nan: it did not come.
    """
    seen = set[str]()
    for table in tables:
        store = read_store(table)
        figures = {(run["cell"], run["seed"]): run for run in run_figures(store).to_dict("records")}
        for (cell, seed), rows in store.groupby(RUN):
            settings = str(rows["settings"].iloc[0])
            if settings not in seen:
                seen.add(settings)
                yield rows.sort_values("step"), {event: float(figures[cell, seed][event]) for event in EVENTS}


def first_alarm(history: Sequence[dict[str, float]], limits: Limits) -> float:
    """The number of steps after which the sentinel first says something; nan: it never does."""
    for steps in range(limits.baseline_steps + 1, len(history) + 1):
        if alarms(history[:steps], limits):
            return float(steps)
    return math.nan


def watched_table(runs: Sequence[Watched]) -> pd.DataFrame:
    """A row a limit and factor: the runs that it names among those that garbled or collapsed, and among the sound ones.

    "lead": the median of steps from the alarm to the event, below 0 where it came after; with the least and the most.
    nan where no run that garbled or collapsed is named.
    """
    rules = {f"{factor:g} x {metric}": {name: factor} for metric, name in LIMITS.items() for factor in FACTORS}
    rules |= {f"below {factor:g} x the best {REWARD}": {"reward_fall": factor} for factor in FALLS}
    named: dict[str, list[float]] = {}  # the rule -> its first alarm in each run
    for rule, limit in rules.items():
        limits = Limits.model_validate(OFF | limit)
        named[rule] = [first_alarm(run.history, limits) for run in runs]
    event = pd.Series([run.event_at for run in runs])
    sound = event.isna()
    rows = {}
    for rule, first in named.items():
        alarm = pd.Series(first)
        lead = (event - alarm).dropna()
        row = {"named": len(lead), "of": int((~sound).sum())}
        row |= {"wrongly": int(alarm[sound].notna().sum()), "of sound": int(sound.sum())}
        rows[rule] = row | {"lead": lead.median(), "least": lead.min(), "most": lead.max()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("limit")
