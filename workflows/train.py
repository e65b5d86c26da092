"""Train a search agent: `workflows/train.py [--config RECIPE] [--resume] [--dry-run] [--section.key value …]`.

Without arguments it trains the pocket policy on the pocket world, on this machine's CPU, with every real part.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("train")  # before what takes seconds to import

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from calibadv.config import Config, command_line, load_config
from calibadv.tracking.run_files import CONFIG
from workflows.command import command_parser, run_command
from workflows.runs import RUNS, resumed_run
from workflows.shipped import RECIPES, recipe_file


def main(arguments: Sequence[str] | None = None, *, train: Callable[..., Any] | None = None) -> int:
    """0: trained, or there was nothing left to train. 1: trained, but the last checkpoint could not be written.

    2: the input was wrong (of a dry run too), or what was to be resumed is another run, and nothing was started. 3: the
    sentinel stopped it. 4: a learner or a node was lost once more than `checkpoint.max_restarts`. 5: ended at its
    start, for its policy cannot learn. 6: Ray did not start. 75: SIGTERM. 130: Ctrl-C. Of 3, 4, 75 and 130 what was
    learned is saved, and the same command with --resume goes on (docs/resume.md). Where a process that the run needs is
    lost, this one becomes the command anew, unless it was given `arguments`. `train`: in place of `one_run.train`.
    """
    asked = parse(arguments)
    if asked.dry_run:
        return show(asked)
    with loading():
        from calibadv.training.restart import start_again, started_again
        from workflows import one_run
    end = (train or one_run.train)(
        asked.config, resume=asked.resume, restart=started_again(), restarts=arguments is None
    )
    return end if isinstance(end, int) else start_again(end)


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
    folder = resumed_run(known.resume)
    where = {"run.folder": folder.parent, "run.name": folder.name}
    return Command(load_config(known.config or folder / CONFIG, overrides | where), resume, known.dry_run)


def show(asked: Command) -> int:
    """0, where all input can be used: prints the configuration and what follows from it, and starts nothing."""
    with loading():
        from rich.console import Console

        from calibadv.cluster.factories import open_dialogue
        from calibadv.memory.plan import plan_of
        from calibadv.training.inputs import check_inputs
        from calibadv.views.dialogue import dialogue_page
        from calibadv.views.dry_run import plan_page
    console, config = Console(), asked.config
    console.print(plan_page(config, plan_of(config)))
    inputs = check_inputs(config, resume=asked.resume)
    if inputs.model.is_dir():
        dialogue = open_dialogue(config, inputs.method, str(inputs.model))  # whose problems `check_inputs` has told
        tools = getattr(dialogue, "tools", ())
        console.print(dialogue_page(dialogue, config.rollout.dialogue, inputs.train_questions[0].text, tools))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, epilog=command_line.keys_help(shutil.get_terminal_size().columns - 2))
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


if __name__ == "__main__":
    sys.exit(run_command(main))
