"""Train a search agent: `python workflows/train.py [--config RECIPE] [--dry-run] [--section.key value …]`.

Without arguments it trains the pocket policy on the pocket world, on this machine's CPU, with every real part.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from calibadv.config import Config, load_config
from calibadv.config_toml import to_toml
from calibadv.dry_run import plan_table
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.view import RunSummary, TerminalView, open_view
from workflows.command import run_command
from workflows.inputs import resolve_inputs
from workflows.sentinel import Collapsed
from workflows.training_run import TrainingRun

RECIPES = Path(__file__).parent / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: trained. 2: the input was wrong and nothing was started. 3: the sentinel stopped it. 130: interrupted.

    In the last two cases what was learned is saved.
    """
    config, dry_run = parse(arguments)
    if dry_run:
        Console().print(plan_table(config))
        return 0
    return train(config)


def parse(arguments: Sequence[str] | None = None) -> tuple[Config, bool]:
    """The configuration of the command line, and whether only to show it."""
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=RECIPES / "pocket.toml", help="a recipe (default: pocket.toml)")
    parser.add_argument("--dry-run", action="store_true", help="print the configuration and what follows from it")
    known, overrides = parser.parse_known_args(arguments)
    return load_config(known.config, overrides), known.dry_run


def train(config: Config) -> int:
    """One run with the terminal's view."""
    with open_view(config.run.steps) as view:
        try:
            summary = train_run(config, view)
        except KeyboardInterrupt:
            return 130
        except Collapsed as collapse:
            logging.getLogger("workflows.train").error("%s", collapse)
            return 3
        view.finish(summary)
    return 0


def train_run(
    config: Config, view: TerminalView, *, tags: Mapping[str, str] | None = None, search_app: str | None = None
) -> RunSummary:
    """Runs the whole of it, into its run folder and MLflow. `tags` are set on the MLflow run beside its own."""
    started_s = time.time()
    inputs = resolve_inputs(config)
    with (
        RunFolder(config.run.folder / config.run_name, overwrite=config.run.overwrite) as folder,
        MlflowRun(
            folder.path,
            experiment=config.tracking.experiment,
            run_name=config.run_name,
            uri=config.tracking.mlflow_uri or None,
            tags={"method": config.method.name, "seed": str(config.run.seed), **(tags or {})},
        ) as mlflow,
    ):
        folder.write_config(to_toml(config))
        mlflow.log_params(config.model_dump(mode="json"))
        return TrainingRun(config, inputs, folder, mlflow, view, search_app).execute(started_s)


def _cli() -> int:
    return run_command(main)


if __name__ == "__main__":
    sys.exit(_cli())
