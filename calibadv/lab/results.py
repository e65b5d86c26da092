"""A study's runs as one table, a row a step, and what each run comes down to, a row a run.

The table is a parquet file that a repository can keep, so that no run is made twice and every figure comes from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from calibadv import tables
from calibadv.collapse import collapse_step
from calibadv.evaluation.figures import Doubles
from calibadv.lab.run import DONE, read_metrics
from calibadv.lab.settings import LabRun
from calibadv.lab.study import Planned, Study

RUN = ["cell", "seed"]
LAST = 1200  # rollouts, about, that a run's end is the mean of: 20 steps of 12 questions x 5
GARBLES_AT, GARBLES_FOR = 0.5, 10  # share of rollouts, and steps whose mean it is


def read_store(path: Path) -> pd.DataFrame:
    """The table, empty where there is none yet."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=[*RUN, "settings", "step"])


def with_finished(store: pd.DataFrame, study: Study, folder: Path) -> pd.DataFrame:
    """The table with every run of the study that has ended in `folder`; a run of other settings is replaced."""
    tables = []
    for planned in study.runs:
        if (folder / planned.folder / DONE).exists():
            rows = pd.DataFrame(read_metrics(folder / planned.folder)).astype("float32")
            rows.insert(0, "cell", planned.cell)
            rows.insert(1, "seed", planned.run.seed)
            rows.insert(2, "settings", planned.run.model_dump_json())
            tables.append(rows)
    if not tables:
        return store
    new = pd.concat(tables)
    made = pd.MultiIndex.from_frame(new[RUN].drop_duplicates())
    kept = store[~pd.MultiIndex.from_frame(store[RUN]).isin(made)]
    whole = pd.concat([kept, new]) if len(kept) else new
    return whole.sort_values([*RUN, "step"], kind="stable", ignore_index=True)


def with_shared(store: pd.DataFrame, study: Study, others: Iterable[Path]) -> pd.DataFrame:
    """The table with those runs of the study that another study has made: equal settings, whatever the cell was called.

    Runs are functions of their settings, so that none needs to be made twice.
    """
    missing = [planned for planned in study.runs if not is_stored(store, planned)]
    tables = [store] if len(store) else []
    for other in map(read_store, others):
        made = {_whole(rows["settings"].iloc[0]): rows.index for _, rows in other.groupby(RUN)}
        for planned in [planned for planned in missing if planned.run.model_dump_json() in made]:
            tables.append(other.loc[made[planned.run.model_dump_json()]].assign(cell=planned.cell))
            missing.remove(planned)
    whole = pd.concat(tables) if tables else store
    return whole.sort_values([*RUN, "step"], kind="stable", ignore_index=True)


def _whole(settings: str) -> str:
    """Settings as they are written now: with a value of every key that came later."""
    return LabRun.stored(settings).model_dump_json()


def is_stored(store: pd.DataFrame, planned: Planned) -> bool:
    """Whether the table has this very run."""
    rows = store[(store["cell"] == planned.cell) & (store["seed"] == planned.run.seed)]
    return bool(len(rows)) and LabRun.stored(rows["settings"].iloc[0]) == planned.run


def of_study(store: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The rows of the study's own runs: the table may also hold runs of cells and settings that it had once."""
    keys = [(planned.cell, planned.run.seed) for planned in study.runs if is_stored(store, planned)]
    return store[[run in keys for run in store[RUN].itertuples(index=False, name=None)]]


def write_store(store: pd.DataFrame, path: Path) -> None:
    """Writes the table, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store.to_parquet(path, compression="zstd", index=False)


def run_figures(store: pd.DataFrame) -> pd.DataFrame:
    """A row a run: means over its end (tail mass: geometric), held-out F1, and when it collapsed and garbled.

    Its end is the whole steps nearest to the last 1,200 rollouts, one at least: 20 of the usual 60. Steps are counted
    from 1; nan: it did not. A run that ended without any reward has its last steps' values.
    """
    return pd.DataFrame([{**dict(zip(RUN, run, strict=True)), **_figures(rows)} for run, rows in store.groupby(RUN)])


def _figures(rows: pd.DataFrame) -> dict[str, float]:
    rows = rows.sort_values("step")
    run = LabRun.stored(rows["settings"].iloc[0])
    last = rows.tail(max(round(LAST / (run.questions * run.samples)), 1))

    def mean(of: pd.DataFrame, metric: str) -> float:
        return float(of[metric].mean()) if metric in of else math.nan  # absent where no step has it

    fell = collapse_step(rows["reward/mean"].tolist())
    return {
        "steps": float(len(rows)),
        "f1": mean(last, "reward/mean"),
        "format": mean(last, "reward/format"),
        "held_out_f1": _held_out(rows, run),
        "entropy": mean(last, "policy/entropy"),
        "log_tail_mass": float(np.log(last["policy/tail_mass"].clip(lower=1e-12)).mean()),
        "ppl": mean(last, "policy/ppl"),
        "garbled": mean(last, "language/garbled"),
        "legal": mean(last, "language/legal"),
        "neg_pos_ratio": mean(rows, "advantage/neg_pos_ratio"),
        "wrong_over_right": mean(rows, "length/wrong_over_right"),
        "collapsed_at": math.nan if fell is None else fell + 1.0,
        "garbled_at": garbled_at(rows["language/garbled"].to_numpy()),
    }


def _held_out(rows: pd.DataFrame, run: LabRun) -> float:
    """The newest evaluation; 0 where a run ended early, for it had no reward left, and was not evaluated then."""
    found = rows["eval/f1"] if "eval/f1" in rows else pd.Series(math.nan, rows.index)
    if len(rows) < run.steps and math.isnan(found.iloc[-1]):
        return 0.0
    return float(found.dropna().iloc[-1]) if found.notna().any() else math.nan


def garbled_at(garbled_K: Doubles) -> float:
    """The first step from which the mean of 10 steps is a half or more; nan where there is none."""
    if len(garbled_K) < GARBLES_FOR:
        return math.nan
    means_W = np.lib.stride_tricks.sliding_window_view(garbled_K, GARBLES_FOR).mean(axis=1)
    over_W = np.flatnonzero(means_W >= GARBLES_AT)
    return float(over_W[0] + 1) if len(over_W) else math.nan


def cell_table(figures: pd.DataFrame) -> pd.DataFrame:
    """A row a cell: runs, mean and deviation over seeds of each figure, and how many runs collapsed and garbled."""
    grouped = figures.groupby("cell", sort=False)
    table = pd.DataFrame({"runs": grouped.size()})
    for name in figures.columns.difference([*RUN, "steps", "collapsed_at", "garbled_at"], sort=False):
        table[name] = grouped[name].mean()
        table[f"{name} ±"] = grouped[name].std(ddof=1)
    for name in ("collapsed", "garbled"):
        table[f"{name} runs"] = grouped[f"{name}_at"].count()
    return table


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """The table in Markdown, numbers with so many significant digits, a dash for what is not defined."""

    def told(value: object) -> str:
        if isinstance(value, float):
            return "–" if math.isnan(value) else f"{value:.{digits}g}"
        return str(value)

    named = table.reset_index()
    rows = [[told(value) for value in row] for row in named.itertuples(index=False)]
    shown = pd.DataFrame(rows, columns=named.columns)
    return tables.markdown(shown, words=named.columns[:1]) + "\n"
