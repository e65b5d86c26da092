"""Check a machine before a long run: `workflows/doctor.py [--config RECIPE] [--deep] [--section.key value …]`.

Each line passes, warns or fails, and says what to do. Nothing is kept of what is tried. Ray is started with `--deep`
only, or joined where `cluster.address` names a cluster.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("doctor")  # before what takes seconds to import

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from calibadv.config import load_config
from workflows.command import run_command
from workflows.examination.checks import CHECKS
from workflows.examination.finding import exit_code
from workflows.examination.report import report
from workflows.examination.subject import Subject
from workflows.shipped import recipe_file

RECIPES = Path(__file__).parent / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing failed, warnings there may be. 1: something failed. 2: the arguments or the recipe are wrong."""
    subject = parse(arguments)
    for chatty in ("calibadv", "serve", "workflows", "ray"):
        logging.getLogger(chatty).setLevel(logging.ERROR)  # what matters is a line of the report
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported, by a check
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return exit_code(report(CHECKS, subject, Console()))


def parse(arguments: Sequence[str] | None = None) -> Subject:
    """The recipe of the command line, and whether to look deep."""
    parser = argparse.ArgumentParser(prog="doctor.py", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--config", type=recipe_file, default=RECIPES / "pocket.toml", help="a recipe (default: pocket.toml)"
    )
    parser.add_argument("--deep", action="store_true", help="start Ray too, read all data, and try a model of any size")
    known, overrides = parser.parse_known_args(arguments)
    return Subject(load_config(known.config, overrides), known.deep, ("--config", str(known.config), *overrides))


def _cli() -> int:
    return run_command(main)


if __name__ == "__main__":
    sys.exit(_cli())
