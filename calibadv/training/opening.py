"""A run before its first step: its inputs, folder, checkpoints and MLflow run, anew or as they are gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from calibadv.checkpoints.identity import Identity
from calibadv.checkpoints.storage import Kind
from calibadv.cluster.prompts import with_date
from calibadv.config import Config, to_toml
from calibadv.json_lines import read_json_lines
from calibadv.rllib.lost import recoverable
from calibadv.tracking.provenance import command_line, note
from calibadv.tracking.run_files import OUTPUT, RESTARTS
from calibadv.tracking.run_folder import RunFolder
from calibadv.training.checkpoints import Checkpoints, Snapshots
from calibadv.training.parts import Parts
from calibadv.training.records import Records
from calibadv.training.restart import FIRST_START, Restart
from calibadv.training.resume import begin_anew, date_of_checkpoint, restart_run, resume_run, storage_of
from calibadv.training.run import TrainingRun
from calibadv.training.signals import Interruption
from calibadv.training.summary import logged_params, title
from calibadv.views.summary import TerminalView


@contextmanager
def opened_run(
    config: Config,
    view: TerminalView,
    interruption: Interruption,
    parts: Parts,
    *,
    resume: bool = False,
    restart: Restart = FIRST_START,
    tags: Mapping[str, str] | None = None,
) -> Iterator[TrainingRun]:
    """The run, ready to be executed once, or what is left of it.

    `resume`: the command was told to go on. `restart`: whether it goes on by itself. `tags` are set on the MLflow run
    beside its own. ValueError, with nothing started, for bad input, for a folder that another run has or writes, and
    for a run that cannot be resumed.
    """
    begun_s, goes_on = time.monotonic(), resume or restart.number > 0
    view.stage("Files", "model, questions and corpus are read")
    inputs = parts.inputs(config)
    with RunFolder(config.run.folder / config.run_name, overwrite=config.run.overwrite, resume=goes_on) as folder:
        view.keep_output(folder.path / OUTPUT)
        storage = storage_of(config, folder.path)
        config = with_date(config, inputs.method, inputs.model, date_of_checkpoint(storage) if goes_on else "")
        identity = Identity(config.flat(), dict(inputs.digests))
        checkpoints = Checkpoints(config.checkpoint, identity, folder, Snapshots(storage))
        resumed = None
        if restart.number:
            folder.append_restart(restart.why)
            resumed = restart_run(config, identity, storage, folder)
        elif resume:
            resumed = resume_run(config, identity, storage, folder)
        else:
            begin_anew(storage, overwrite=config.run.overwrite)
        checkpoints.there = set(storage.versions(Kind.CHECKPOINT))
        if resumed is not None:
            inputs = replace(inputs, start=resumed.start)
            checkpoints.go_on(resumed.progress, resumed.named)
        with parts.tracked(config, folder.path, tags or {}) as tracker:
            folder.write_config(to_toml(config))
            if resumed is None or tracker.run_id is None:
                tracker.log_params(logged_params(config))
                tracker.log_inputs(list(inputs.data_sets.values()))
                if (test := inputs.data_sets.get("test")) is not None:
                    tracker.log_questions(test, inputs.test_questions)
                tracker.log_note(note(f"{title(config)}, not finished", {}, {}, command_line(folder.path)))
            tracker.log_system_metrics()
            if resumed is not None:
                tracker.log_tags({"resumed_from_step": str(resumed.progress.version)})
                tracker.log_version_tags(resumed.progress.version, {"final": "false"})  # of a finished run that goes on
            if restart.number:
                tracker.log_tags({"restarts": str(len(read_json_lines(folder.path / RESTARTS)))})
            yield TrainingRun(
                config,
                inputs,
                Records(config, inputs, folder, tracker, view, parts.overview, parts.plots, parts.report),
                checkpoints,
                parts.started,
                interruption,
                resumed.progress if resumed else None,
                begun_s=begun_s,
                starts_again=lambda error: recoverable(error) and restart.number < config.checkpoint.max_restarts,
            )
