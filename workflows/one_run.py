"""One training run, from its configuration to its exit code (`train`) or its summary (`train_run`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import ray

from calibadv.config import Config
from calibadv.report.write import write_run_report
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.training.opening import opened_run
from calibadv.training.parts import Parts
from calibadv.training.readiness import Unready
from calibadv.training.restart import FIRST_START, Restart, next_restart, with_restarts
from calibadv.training.resume import finished_steps
from calibadv.training.sentinel import Collapsed
from calibadv.training.signals import Interruption, Preempted
from calibadv.views.summary import RunSummary, TerminalView
from workflows.session import started
from workflows.shipped import shipped_recipes

logger = logging.getLogger("workflows.train")

PREEMPTED = os.EX_TEMPFAIL  # 75, "try again later": what sysexits.h calls it
LOST = 4  # processes, more often than the run starts again by itself
ENDS: dict[type[Exception], int] = {CheckpointFailed: 1, Collapsed: 3, Unready: 5}
"""What ends a run with its reason in one line, and the exit code."""
PARTS = Parts(started, report=lambda folder: write_run_report(folder, shipped_recipes()))


def train(
    config: Config,
    *,
    resume: bool = False,
    restart: Restart = FIRST_START,
    restarts: bool = False,
    parts: Parts = PARTS,
) -> int | Restart:
    """One run with the terminal's view; the exit code, or the restart that is to follow.

    `restarts`: whether the caller starts the command anew where a process that the run needs is lost; without it such
    a run ends.
    """
    folder = config.run.folder / config.run_name
    if resume and (done := finished_steps(folder)) is not None and done >= config.run.steps:
        logger.info("%s has finished all of its %d steps: there is nothing to go on with", folder, done)
        return 0
    with Interruption().installed() as interruption, parts.view(config.run.steps) as view:
        try:
            with opened_run(config, view, interruption, parts, resume=resume, restart=restart) as run:
                summary = run.execute()
        except Preempted:
            return PREEMPTED
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            for kind, code in ENDS.items():
                if isinstance(error, kind):
                    logger.error("%s", error)
                    return code
            following = next_restart(error, restart, config.checkpoint.max_restarts if restarts else 0)
            if following is None:
                logger.error("%s, and %s", error, error.__notes__[-1])
                return LOST
            return following
        view.finish(summary)
    return 0


def train_run(
    config: Config, view: TerminalView, *, tags: Mapping[str, str] | None = None, parts: Parts = PARTS
) -> RunSummary:
    """The whole of one run, into its run folder and MLflow, for whoever calls from Python.

    `tags` are set on the MLflow run beside its own. Inside a Ray that is up (a Tune trial's) a run that loses a learner
    or a node is begun again here, and the last loss is raised when that has happened too often; elsewhere the first
    one is. ValueError as of `opened_run`.
    """

    def attempt(restart: Restart) -> RunSummary:
        with opened_run(config, view, Interruption(), parts, restart=restart, tags=tags) as run:
            return run.execute()

    return with_restarts(attempt, max_restarts=config.checkpoint.max_restarts if ray.is_initialized() else 0)
