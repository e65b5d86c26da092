"""Train a search agent: `workflows/train.py [--config RECIPE] [--resume] [--dry-run] [--section.key value …]`.

Without arguments it trains the pocket policy on the pocket world, on this machine's CPU, with every real part.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("train")  # before what takes seconds to import

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
from rich.console import Console

from calibadv.config import Config, ConfigError, command_line, load_config
from calibadv.memory.plan import plan_of
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.rllib.lost import mends
from calibadv.training.attempt import make_attempt
from calibadv.training.inputs import check_inputs
from calibadv.training.readiness import Unready
from calibadv.training.restart import Restart, RestartsUsedUp, after, restarted, start_again, started_again
from calibadv.training.resume import finished_steps
from calibadv.training.sentinel import Collapsed
from calibadv.training.signals import Interruption, Preempted
from calibadv.views.dry_run import plan_page
from calibadv.views.open import open_view
from calibadv.views.summary import RunSummary, TerminalView
from workflows.command import run_command
from workflows.session import started
from workflows.shipped import recipe_file

logger = logging.getLogger("workflows.train")

RECIPES = Path(__file__).parent / "recipes"
RUNS = Path("runs")  # where --resume looks for a name
PREEMPTED = os.EX_TEMPFAIL  # 75, "try again later": what sysexits.h calls it
Again = Callable[[Restart], int]
UNREADY = 5  # the policy cannot learn
LOST = 4  # processes, more often than the run starts again by itself


def main(arguments: Sequence[str] | None = None, again: Again | None = None) -> int:
    """0: trained, or there was nothing left to train. 1: trained, but the last checkpoint could not be written.

    2: the input was wrong (of a dry run too), or what was to be resumed is another run, and nothing was started. 3: the
    sentinel stopped it. 4: a learner or a node was lost once more than `checkpoint.max_restarts`. 5: ended at its
    start, for its policy cannot learn. 6: Ray did not start. 75: SIGTERM. 130: Ctrl-C. Of 3, 4, 75 and 130 what was
    learned is saved, and the same command with --resume goes on (docs/resume.md).
    """
    asked = parse(arguments)
    if asked.dry_run:
        Console().print(plan_page(asked.config, plan_of(asked.config)))
        check_inputs(asked.config, resume=asked.resume)
        return 0
    return train(asked.config, resume=asked.resume, restart=started_again(), again=again)


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for: to train, to go on, or only to show what would be trained."""

    config: Config
    resume: bool
    dry_run: bool


def parse(arguments: Sequence[str] | None = None) -> Command:
    """What the command line asks for.

    `--resume RUN` takes the run's own configuration, unless a recipe is given; overrides apply to either.
    """
    known, overrides = command_line.parse(_parser(), arguments)
    resume = known.resume is not None
    if not known.resume:
        return Command(load_config(known.config or RECIPES / "pocket.toml", overrides), resume, known.dry_run)
    folder = next((path for path in (Path(known.resume), RUNS / known.resume) if path.is_dir()), None)
    if folder is None or not (folder / "config.toml").is_file():
        raise ConfigError(
            f"--resume {known.resume}: neither {known.resume} nor {RUNS / known.resume} is the folder of a run (with a "
            "config.toml): name one, or give the command that the run was started with and --resume alone"
        )
    where = {"run.folder": folder.absolute().parent, "run.name": folder.absolute().name}
    return Command(load_config(known.config or folder / "config.toml", overrides | where), resume, known.dry_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=recipe_file, help="a recipe (default: pocket.toml, or the resumed run's own)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the configuration and what follows from it, and check all input"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help=f"go on from the run's newest checkpoint: a folder or a name in {RUNS}/; alone: the run of this command",
    )
    return parser


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


def _cli() -> int:
    return run_command(lambda: main(again=start_again))


if __name__ == "__main__":
    sys.exit(_cli())
