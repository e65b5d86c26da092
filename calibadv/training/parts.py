"""What a run starts or opens, handed in: a test, a study or a program of one's own hands in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from calibadv.config import Config
from calibadv.plots.run import write_overview, write_plots
from calibadv.report.write import write_run_report
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.provenance import method_color
from calibadv.tracking.series import History
from calibadv.tracking.tracker import Tracker
from calibadv.training.inputs import Inputs, resolve_inputs
from calibadv.views.open import open_view
from calibadv.views.summary import TerminalView

Started = Callable[[Config, Inputs, TerminalView], AbstractContextManager[CalibAdvAlgorithm]]
"""What starts all that a run needs, and stops it on the way out: a ready algorithm on a running cluster."""


def mlflow_run(config: Config, folder: Path, tags: Mapping[str, str]) -> MlflowRun:
    """The run in MLflow, under its name in its experiment; `tags` beside its own."""
    return MlflowRun(
        folder,
        experiment=config.tracking.experiment,
        run_name=config.run_name,
        uri=config.tracking.mlflow_uri or None,
        tags={
            "method": config.method.name,
            "seed": str(config.run.seed),
            "mlflow.runColor": method_color(config.method.name),
            **tags,
        },
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is put together from. `started` has no default: only a command knows Serve (workflows/session.py)."""

    started: Started
    inputs: Callable[[Config], Inputs] = resolve_inputs
    tracked: Callable[[Config, Path, Mapping[str, str]], AbstractContextManager[Tracker]] = mlflow_run
    overview: Callable[[History, Path], Path | None] = write_overview  # after an evaluation
    plots: Callable[[History, Path], list[Path]] = write_plots  # at the end
    view: Callable[[int], TerminalView] = open_view  # of so many steps
    report: Callable[[Path], Path] = write_run_report  # the page of a finished run's folder
