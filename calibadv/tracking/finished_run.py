"""A run that is there, read from its folder: metrics and rollouts as pandas frames, configuration, summary, model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from calibadv.config import Config, load_config
from calibadv.json_lines import read_json_lines
from calibadv.tracking import run_files
from calibadv.tracking.run_folder import read_history


@dataclass(frozen=True, slots=True)
class Run:
    """The run in `folder`, under way or finished; each property reads it as it is now.

    ValueError, once it is made, where the folder holds no run.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not run_files.is_run(self.folder):
            raise ValueError(f"{self.folder} is no run's folder: it has no {run_files.CONFIG}")

    @property
    def config(self) -> Config:
        """All settings, defaults included."""
        return load_config(self.folder / run_files.CONFIG)

    @property
    def metrics(self) -> pd.DataFrame:
        """A row a step, by `step`; row 0 is the first evaluation. What was not measured in a step is NaN."""
        return pd.DataFrame(read_history(self.folder / run_files.METRICS)).set_index("step")

    @property
    def rollouts(self) -> pd.DataFrame:
        """A row a sampled rollout: step, question, answer, rewards, and `turns`, a list with a dict a turn."""
        return pd.DataFrame(read_json_lines(self.folder / run_files.ROLLOUTS))

    @property
    def predictions(self) -> pd.DataFrame:
        """A row a test question: the newest evaluation's greedy answers and their scores."""
        return pd.DataFrame(read_json_lines(self.folder / run_files.PREDICTIONS))

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of a finished run. ValueError for one that has not finished."""
        if (summary := run_files.read_summary(self.folder)) is None:
            raise ValueError(f"{self.folder} has not finished: it has no {run_files.SUMMARY}")
        return summary

    @property
    def model(self) -> Path:
        """The trained policy's folder, which `from_pretrained`, vLLM and `model.path` open. ValueError if not there."""
        if not (self.folder / run_files.MODEL).is_dir():
            raise ValueError(f"{self.folder} holds no model yet")
        return self.folder / run_files.MODEL
