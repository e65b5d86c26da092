"""One attempt at a run, from its inputs to its summary: begun anew, gone on with, or started again by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from calibadv.checkpoints.identity import Identity
from calibadv.cluster.prompts import with_date
from calibadv.config import Config, to_toml
from calibadv.json_lines import read_json_lines
from calibadv.rllib.lost import mends
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.provenance import command_line, method_color, note
from calibadv.tracking.run_folder import RunFolder
from calibadv.training.checkpoints import Checkpoints
from calibadv.training.inputs import resolve_inputs
from calibadv.training.restart import Restart
from calibadv.training.resume import begin_anew, date_of_checkpoint, restart_run, resume_run, run_identity, storage_of
from calibadv.training.run import Started, TrainingRun
from calibadv.training.signals import Interruption
from calibadv.training.snapshots import Snapshots
from calibadv.training.summary import logged_params, title
from calibadv.views.summary import RunSummary, TerminalView


def make_attempt(
    config: Config,
    view: TerminalView,
    interruption: Interruption,
    tags: Mapping[str, str],
    started: Started,
    *,
    resume: bool,
    restart: Restart,
) -> RunSummary:
    """The whole run, or what is left of it, in its folder and its MLflow run; raises whatever ends it early.

    `resume`: the command was told to go on. `restart`: whether it goes on by itself.
    """
    begun_s, again = time.time(), resume or restart.number > 0
    view.stage("Files", "model, questions and corpus are read")
    inputs = resolve_inputs(config)
    with RunFolder(config.run.folder / config.run_name, overwrite=config.run.overwrite, resume=again) as folder:
        view.keep_output(folder.output)
        storage = storage_of(config, folder.path)
        config = with_date(config, inputs.model, date_of_checkpoint(storage) if again else "")
        identity = run_identity(config, inputs) if again or config.checkpoint.every else Identity({}, {})
        checkpoints = Checkpoints(config.checkpoint, identity, folder, Snapshots(storage))
        resumed = None
        if restart.number:
            folder.append_restart(restart.why)
            resumed = restart_run(config, identity, storage, folder)
        elif resume:
            resumed = resume_run(config, identity, storage, folder)
        else:
            begin_anew(storage, overwrite=config.run.overwrite)
        if resumed is not None:
            inputs = replace(inputs, start=resumed.start)
            checkpoints.go_on(resumed.progress, resumed.named)
        with MlflowRun(
            folder.path,
            experiment=config.tracking.experiment,
            run_name=config.run_name,
            uri=config.tracking.mlflow_uri or None,
            tags={
                "method": config.method.name,
                "seed": str(config.run.seed),
                "mlflow.runColor": method_color(config.method.name),
                **tags,
            },
        ) as mlflow:
            folder.write_config(to_toml(config))
            if resumed is None or mlflow.run_id is None:
                mlflow.log_params(logged_params(config))
                mlflow.log_note(note(f"{title(config)}, not finished", {}, {}, command_line(folder.path)))
            mlflow.log_system_metrics()
            if resumed is not None:
                mlflow.log_tags({"resumed_from_step": str(resumed.progress.version)})
            if restart.number:
                mlflow.log_tags({"restarts": str(len(read_json_lines(folder.restarts)))})
            run = TrainingRun(
                config,
                inputs,
                folder,
                mlflow,
                view,
                checkpoints,
                started,
                interruption,
                resumed.progress if resumed else None,
                begun_s=begun_s,
                starts_again=lambda error: mends(error) and restart.number < config.checkpoint.max_restarts,
            )
            return run.execute()
