"""Which metric of a step tells beforehand that a run will garble or collapse? All are tried, on runs not seen before.

A signal is a metric's mean over ten steps, plain or against the run's own beginning, least or most so far, that comes
above or below a bound. Bounds are drawn from the sound runs of even seeds, of which one in twenty may cross; what they
are worth is counted in the runs of odd seeds.

T steps of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibadv.evaluation.figures import Doubles
from calibadv.lab.watched import distinct_runs

WINDOW = 10  # steps
WRONGLY = 0.05  # of the sound runs that bounds are drawn from
# What no training run has, what is nothing of the policy or its rollouts, and what is measured in few steps.
LEFT_OUT = ("language/", "policy/tail_mass", "length/", "time/", "eval/", "learner/lr", "learner/updates")
FORMS: dict[str, Callable[[Doubles], Doubles]] = {
    "{}": lambda mean_T: mean_T,
    "{} over its first": lambda mean_T: mean_T / mean_T[0],
    "{} over its least": lambda mean_T: mean_T / np.minimum.accumulate(mean_T),
    "{} over its most": lambda mean_T: mean_T / np.maximum.accumulate(mean_T),
}
WAYS = {"above": 1.0, "below": -1.0}


@dataclass(frozen=True, slots=True)
class Course:
    """A run: each metric [T], nan where it was not measured; and the step of each event, nan where it did not come."""

    metrics: Mapping[str, Doubles]
    seed: int
    events: Mapping[str, float]

    @property
    def sound(self) -> bool:
        """Whether no event came."""
        return all(math.isnan(at) for at in self.events.values())


def courses(tables: Iterable[Path]) -> list[Course]:
    """Every run of the tables once, with the metrics that a training run has too."""
    runs = []
    for rows, events in distinct_runs(tables):
        names = [name for name in rows.columns if "/" in name and not name.startswith(LEFT_OUT)]
        metrics = {name: rows[name].to_numpy(float) for name in names}
        runs.append(Course(metrics, int(rows["seed"].iloc[0]), events))
    return runs


def score(values_T: Doubles, form: str) -> Doubles:
    """The signal after each step [T]: nan before the tenth measured one, and where it would divide by 0."""
    mean_T = pd.Series(values_T).rolling(WINDOW, min_periods=WINDOW).mean().ffill().to_numpy(float)
    known_T = np.isfinite(mean_T)
    scored_T = np.full(len(mean_T), math.nan)
    if known_T.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            scored_T[known_T] = FORMS[form](mean_T[known_T])
    return np.where(np.isfinite(scored_T), scored_T, math.nan)


def signal_table(runs: Sequence[Course], event: str) -> pd.DataFrame:
    """A row a signal, the best first: which of the runs of odd seeds it names before `event` comes, and which wrongly.

    "in time": at least a step before; "named": at all; "lead": the median of steps from the alarm to the event of those
    that are named, below 0 where it comes after. A signal that names none in time is left out.
    """
    coming = [run for run in runs if run.seed % 2 and not math.isnan(run.events[event])]
    drawn = [run for run in runs if not run.seed % 2 and run.sound]
    sound = [run for run in runs if run.seed % 2 and run.sound]
    rows = {}
    for metric in sorted({name for run in runs for name in run.metrics}):
        for form in FORMS:
            scores = {id(run): score(run.metrics.get(metric, np.zeros(0)), form) for run in [*coming, *drawn, *sound]}
            for way, sign in WAYS.items():
                bound = _bound([sign * scores[id(run)] for run in drawn])
                alarms = {key: first_above(sign * score_T, bound) for key, score_T in scores.items()}
                lead = pd.Series([run.events[event] - alarms[id(run)] for run in coming], dtype=float).dropna()
                rows[f"{form.format(metric)} {way} {sign * bound:.3g}"] = {
                    "in time": int((lead > 0).sum()),
                    "named": len(lead),
                    "of": len(coming),
                    "wrongly": sum(not math.isnan(alarms[id(run)]) for run in sound),
                    "of sound": len(sound),
                    "lead": lead.median(),
                }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("signal")
    return table[table["in time"] > 0].sort_values(["in time", "wrongly"], ascending=[False, True], kind="stable")


def first_above(score_T: Doubles, bound: float) -> float:
    """The number of steps after which the score first lies above the bound; nan: it never does."""
    (above,) = np.nonzero(score_T > bound)
    return float(above[0] + 1) if len(above) else math.nan


def _bound(scores: Sequence[Doubles]) -> float:
    """What all but `WRONGLY` of the runs stay below."""
    most = [float(np.nanmax(score_T)) for score_T in scores if not np.isnan(score_T).all()]
    return float(np.quantile(most, 1 - WRONGLY, method="higher")) if most else math.inf
