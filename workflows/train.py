"""Train a search agent: `python workflows/train.py [--config RECIPE] [--resume] [--dry-run] [--section.key value …]`.

Without arguments it trains the pocket policy on the pocket world, on this machine's CPU, with every real part.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from calibadv.checkpoints.identity import Identity
from calibadv.config import Config, ConfigError, load_config
from calibadv.config_toml import to_toml
from calibadv.dry_run import plan_table
from calibadv.rllib.checkpoint import CheckpointFailed
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.run_folder import RunFolder, read_json_lines
from calibadv.tracking.view import RunSummary, TerminalView, open_view
from workflows.checkpointing import Checkpoints
from workflows.command import run_command
from workflows.inputs import resolve_inputs
from workflows.interruption import Interruption, Preempted
from workflows.resume import begin_anew, finished_steps, resume_run, run_identity, storage_of
from workflows.sentinel import Collapsed
from workflows.snapshots import Snapshots
from workflows.training_run import TrainingRun

logger = logging.getLogger("workflows.train")

RECIPES = Path(__file__).parent / "recipes"
RUNS = Path("runs")  # where --resume looks for a name
PREEMPTED = os.EX_TEMPFAIL  # 75, "try again later": what sysexits.h calls it


def main(arguments: Sequence[str] | None = None) -> int:
    """0: trained, or there was nothing left to train. 1: trained, but the last checkpoint could not be written.

    2: the input was wrong, or what was to be resumed is another run, and nothing was started. 3: the sentinel stopped
    it. 75: SIGTERM. 130: Ctrl-C. In the last three cases what was learned is saved, and the same command with --resume
    goes on (docs/resume.md).
    """
    config, dry_run = parse(arguments)
    if dry_run:
        Console().print(plan_table(config))
        return 0
    known, _ = _arguments(arguments)
    return train(config, resume=known.resume is not None)


def parse(arguments: Sequence[str] | None = None) -> tuple[Config, bool]:
    """The configuration of the command line, and whether only to show it.

    `--resume RUN` takes the run's own configuration, unless a recipe is given; overrides apply to either.
    """
    known, overrides = _arguments(arguments)
    if not known.resume:
        return load_config(known.config or RECIPES / "pocket.toml", overrides), known.dry_run
    folder = next((path for path in (Path(known.resume), RUNS / known.resume) if path.is_dir()), None)
    if folder is None or not (folder / "config.toml").is_file():
        raise ConfigError(
            f"--resume {known.resume}: neither {known.resume} nor {RUNS / known.resume} is the folder of a run (with a "
            "config.toml): name one, or give the command that the run was started with and --resume alone"
        )
    where = [f"--run.folder={folder.absolute().parent}", f"--run.name={folder.absolute().name}"]
    return load_config(known.config or folder / "config.toml", [*overrides, *where]), known.dry_run


def _arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="a recipe (default: pocket.toml, or the resumed run's own)")
    parser.add_argument("--dry-run", action="store_true", help="print the configuration and what follows from it")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help=f"go on from the run's newest checkpoint: a folder or a name in {RUNS}/; alone: the run of this command",
    )
    return parser.parse_known_args(arguments)


def train(config: Config, *, resume: bool = False) -> int:
    """One run with the terminal's view; the exit code."""
    folder = config.run.folder / config.run_name
    if resume and (done := finished_steps(folder)) is not None and done >= config.run.steps:
        logger.info("%s has finished all of its %d steps: there is nothing to go on with", folder, done)
        return 0
    with Interruption().installed() as interruption, open_view(config.run.steps) as view:
        try:
            summary = train_run(config, view, resume=resume, interruption=interruption)
        except Preempted:
            return PREEMPTED
        except KeyboardInterrupt:
            return 130
        except Collapsed as collapse:
            logger.error("%s", collapse)
            return 3
        except CheckpointFailed as failure:
            logger.error("%s", failure)
            return 1
        view.finish(summary)
    return 0


def train_run(
    config: Config,
    view: TerminalView,
    *,
    resume: bool = False,
    interruption: Interruption | None = None,
    tags: Mapping[str, str] | None = None,
    search_app: str | None = None,
) -> RunSummary:
    """Runs the whole of it, into its run folder and MLflow; with `resume`, what is left of it.

    `tags` are set on the MLflow run beside its own. ValueError, with nothing started, for bad input, for a folder that
    another run has or writes, and for a run that cannot be resumed.
    """
    begun_s = time.time()
    inputs = resolve_inputs(config)
    identity = run_identity(config, inputs) if resume or config.checkpoint.every else Identity({}, {})
    with RunFolder(config.run.folder / config.run_name, overwrite=config.run.overwrite, resume=resume) as folder:
        storage = storage_of(config, folder.path)
        checkpoints = Checkpoints(config.checkpoint, identity, folder, Snapshots(storage))
        resumed = None
        if resume:
            resumed = resume_run(config, identity, storage, folder)
            inputs = replace(inputs, start=resumed.start)
            checkpoints.go_on(resumed.progress, resumed.named)
        else:
            begin_anew(storage, overwrite=config.run.overwrite)
        with MlflowRun(
            folder.path,
            experiment=config.tracking.experiment,
            run_name=config.run_name,
            uri=config.tracking.mlflow_uri or None,
            tags={"method": config.method.name, "seed": str(config.run.seed), **(tags or {})},
            resumed=resume,
        ) as mlflow:
            folder.write_config(to_toml(config))
            if resumed is None or mlflow.run_id is None:
                mlflow.log_params(config.model_dump(mode="json"))
            if resumed is not None:
                mlflow.log_tags({"resumed_from_step": str(resumed.progress.version)})
                mlflow.log_again(read_json_lines(folder.metrics), read_json_lines(folder.rollouts))
            run = TrainingRun(
                config,
                inputs,
                folder,
                mlflow,
                view,
                checkpoints,
                interruption or Interruption(),
                search_app,
                resumed.progress if resumed else None,
                begun_s=begun_s,
            )
            return run.execute()


def _cli() -> int:
    return run_command(main)


if __name__ == "__main__":
    sys.exit(_cli())
