"""Check a machine before a long run: `workflows/doctor.py [--config RECIPE] [--deep] [--section.key value …]`.

Each line passes, warns or fails, and says what to do. Nothing is kept of what is tried. Ray is started with `--deep`
only, or joined where `cluster.address` names a cluster.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("doctor")  # before what takes seconds to import

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from calibadv.config import Config, command_line, load_config
from workflows.command import run_command
from workflows.shipped import RECIPES, recipe_file

if TYPE_CHECKING:
    from calibadv.cluster.nodes import Cluster
    from calibadv.doctor.checks import Means
    from calibadv.doctor.examine import Check
    from calibadv.doctor.subject import Subject


def main(arguments: Sequence[str] | None = None, looks: Sequence[Check] | None = None) -> int:
    """0: nothing failed, warnings there may be. 1: something failed. 2: the arguments or the recipe are wrong.

    `looks` take the place of all checks.
    """
    subject = parse(arguments)
    with loading():
        from huggingface_hub.utils.tqdm import disable_progress_bars
        from rich.console import Console

        from calibadv.doctor.checks import checks
        from calibadv.doctor.finding import exit_code
        from calibadv.doctor.report import report
    for chatty in ("calibadv", "serve", "workflows", "ray"):
        logging.getLogger(chatty).setLevel(logging.ERROR)  # what matters is a line of the report
    disable_progress_bars()  # of downloads: they would tear the report
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return exit_code(report(checks(means()) if looks is None else looks, subject, Console()))


def means() -> Means:
    """What the checks use of a run: its Ray."""
    from calibadv.doctor.checks import Means
    from workflows.session import wanted_cpus

    return Means(joined, wanted_cpus)


@contextmanager
def joined(config: Config) -> Iterator[Cluster]:
    """What the run's cluster says; one that is started here ends with it."""
    from calibadv.cluster.nodes import about_cluster
    from workflows.session import ray_of, wanted_cpus

    with ray_of(config, wanted_cpus(config)):
        yield about_cluster(config)


def parse(arguments: Sequence[str] | None = None) -> Subject:
    """The recipe of the command line, and whether to look deep."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=command_line.KEYS_TOO, allow_abbrev=False)
    parser.add_argument(
        "--config", type=recipe_file, default=RECIPES / "pocket.toml", help="a recipe (default: pocket.toml)"
    )
    parser.add_argument("--deep", action="store_true", help="start Ray too, read all data, and try a model of any size")
    known, overrides = command_line.parse(parser, arguments)
    with loading():
        from calibadv.doctor.subject import Subject
    given = ("--config", str(known.config), *command_line.flags(overrides))
    return Subject(load_config(known.config, overrides), known.deep, given)


if __name__ == "__main__":
    sys.exit(run_command(main))
