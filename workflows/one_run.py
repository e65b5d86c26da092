"""One training run, from its configuration to its exit code (`train`) or its summary (`train_run`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial

import ray

from calibadv.config import Config
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.rllib.lost import mends
from calibadv.training.attempt import make_attempt
from calibadv.training.readiness import Unready
from calibadv.training.restart import Restart, RestartsUsedUp, after, restarted
from calibadv.training.resume import finished_steps
from calibadv.training.sentinel import Collapsed
from calibadv.training.signals import Interruption, Preempted
from calibadv.views.open import open_view
from calibadv.views.summary import RunSummary, TerminalView
from workflows.session import started

logger = logging.getLogger("workflows.train")

PREEMPTED = os.EX_TEMPFAIL  # 75, "try again later": what sysexits.h calls it
UNREADY = 5  # the policy cannot learn
LOST = 4  # processes, more often than the run starts again by itself
Again = Callable[[Restart], int]


def train(config: Config, *, resume: bool = False, restart: Restart | None = None, again: Again | None = None) -> int:
    """One run with the terminal's view; the exit code.

    `again` starts the command anew after `restart`s, where a process that the run needs is lost; without it such a run
    ends.
    """
    folder = config.run.folder / config.run_name
    if resume and (done := finished_steps(folder)) is not None and done >= config.run.steps:
        logger.info("%s has finished all of its %d steps: there is nothing to go on with", folder, done)
        return 0
    restart = restart or Restart()
    with Interruption().installed() as interruption, open_view(config.run.steps) as view:
        try:
            summary = train_run(config, view, resume=resume, interruption=interruption, restart=restart)
        except Preempted:
            return PREEMPTED
        except KeyboardInterrupt:
            return 130
        except Collapsed as collapse:
            logger.error("%s", collapse)
            return 3
        except Unready as unready:
            logger.error("%s", unready)
            return UNREADY
        except CheckpointFailed as failure:
            logger.error("%s", failure)
            return 1
        except Exception as error:
            try:
                if not mends(error):
                    raise
                restart = after(error, restart, config.checkpoint.max_restarts if again else 0)
            except RestartsUsedUp as end:
                logger.error("%s", end)
                return LOST
        else:
            view.finish(summary)
            return 0
    assert again is not None
    return again(restart)


def train_run(
    config: Config,
    view: TerminalView,
    *,
    resume: bool = False,
    interruption: Interruption | None = None,
    tags: Mapping[str, str] | None = None,
    search_app: str | None = None,
    restart: Restart | None = None,
) -> RunSummary:
    """Runs the whole of it, into its run folder and MLflow; with `resume`, what is left of it.

    `tags` are set on the MLflow run beside its own. ValueError, with nothing started, for bad input, for a folder that
    another run has or writes, and for a run that cannot be resumed. Inside a running Ray (a Tune trial) a run that
    loses a learner or a node is begun again here, and `RestartsUsedUp` says when that has happened too often; elsewhere
    the loss is raised, and `restart` tells a new process of it.
    """
    held, start = interruption or Interruption(), partial(started, search_app=search_app)

    def attempt(restart: Restart) -> RunSummary:
        try:
            return make_attempt(config, view, held, tags or {}, start, resume=resume, restart=restart)
        except Exception:
            held.let_in()  # a signal that waited for the end of what has failed
            raise

    if ray.is_initialized():  # a Tune trial's
        return restarted(attempt, max_restarts=config.checkpoint.max_restarts)
    return attempt(restart or Restart())
