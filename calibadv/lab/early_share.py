"""What share of an update was signal in a run's first steps, beside what the same run came to when it was made longer.

Question 6 of docs/lab.md: runs are functions of their settings, so that the first steps of a short one are those of a
long one that was made before there was the metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from calibadv.lab.results import RUN, read_store, run_figures
from calibadv.lab.settings import LabRun
from calibadv.lab.survival import EVENTS

SHARE = "learner/signal_share"
STEPS = 25
GRPO_ON_POLICY = ("GRPO at 0.001", "GRPO at 0.0007", "GRPO at 0.0005", "negatives x 1, top_p 1")  # question 6's cells
LENGTH = {"steps": 1, "evaluate_every": 1, "evaluation_questions": 1}  # how long a run is, and when it is asked


def early_shares(short: Path, tables: Sequence[Path]) -> pd.DataFrame:
    """A row a run of `short`: mean share of its first 25 steps, t (mean over standard error), and each event's step.

    Events are those of the longest run with the same settings in `tables`; nan: it did not come.
    """
    ends: dict[str, tuple[float, dict[str, float]]] = {}  # the settings -> steps and events of the longest such run
    for table in tables:
        store = read_store(table)
        settings = {run: _settings(str(rows["settings"].iloc[0])) for run, rows in store.groupby(RUN)}
        for run in run_figures(store).to_dict("records"):
            key, steps = settings[run["cell"], run["seed"]], float(run["steps"])
            if steps > ends.get(key, (0.0, {}))[0]:
                ends[key] = steps, {event: float(run[event]) for event in EVENTS}
    rows = []
    for (cell, seed), early in read_store(short).groupby(RUN):
        share_T = early.sort_values("step")[SHARE].head(STEPS).dropna().to_numpy(float)
        t = share_T.mean() / (share_T.std(ddof=1) / math.sqrt(len(share_T)))
        _, events = ends[_settings(str(early["settings"].iloc[0]))]
        rows.append({"cell": cell, "seed": seed, "share": share_T.mean(), "t": t, **events})
    return pd.DataFrame(rows)


def by_cell(runs: pd.DataFrame) -> pd.DataFrame:
    """Of each cell its seeds' mean, least and most share, median t, and how many came to each event."""
    cells = runs.groupby("cell", sort=False)
    table = cells["share"].agg(["count", "mean", "min", "max"]).set_axis(["runs", "share", "least", "most"], axis=1)
    table["median t"] = cells["t"].median()
    table["t below -3"] = cells["t"].apply(lambda t: int((t < -3).sum()))
    for event, name in EVENTS.items():
        table[name] = cells[event].count()
    return table.sort_values("share")


def area_for_collapse(runs: pd.DataFrame) -> float:
    """How well t tells GRPO's runs on policy that collapse from the others; seeds 1 on, as question 6 counts them."""
    counted = runs[runs["cell"].isin(GRPO_ON_POLICY) & (runs["seed"] > 0)]
    collapsed = counted["collapsed_at"].notna()
    return area(counted["t"][collapsed].tolist(), counted["t"][~collapsed].tolist())


def area(low: Sequence[float], high: Sequence[float]) -> float:
    """How often one of `low` lies below one of `high`, ties half: the area under the curve of a threshold on it."""
    return float(stats.mannwhitneyu(high, low).statistic) / (len(low) * len(high)) if len(low) and len(high) else np.nan


def _settings(settings: str) -> str:
    return LabRun.stored(settings).model_copy(update=LENGTH).model_dump_json()
