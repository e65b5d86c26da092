"""Questions from use: `workflows/prepare_data.py from-feedback SOURCE OUT.parquet`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from calibadv.config import POCKET
from calibadv.data.preparation.feedback import prepare_feedback, write_accepted
from calibadv.data.row_report import say_rows
from calibadv.data.tally import Tally
from calibadv.tracking.registered import is_registered
from calibadv.tracking.starting import loading
from workflows.runs import found_run
from workflows.shipped import RECIPES

if TYPE_CHECKING:
    from calibadv.tracking.assessed import Assessed

log = logging.getLogger("workflows.prepare_data")


def from_feedback(known: argparse.Namespace) -> None:
    """Writes the accepted answers of a file of thumbs, or of the traces of a run or model, as questions."""
    given, wanted = known.source, {"name": known.name, "against": known.against, "drop_overlap": known.drop_overlap}
    if Path(given).is_file() or not (is_registered(given) or given == POCKET or found_run(given)):
        where = given
        prepared = prepare_feedback(Path(given), known.out, skip_bad=known.skip_bad, **wanted)
    else:
        said = _assessed(given)
        where, tally = said.place, Tally(len(said.thumbs), len(said.thumbs))
        if said.wordless:
            log.warning("%d thumbs are of traces without words (serve.trace_text), and left out", said.wordless)
        prepared = write_accepted(said.thumbs, known.out, tally, place=f"{given} in {where}", **wanted)
    say_rows("feedback", where, prepared.tally)
    log.info("%s: %d questions, %d shared with the test sets", prepared.path, prepared.written, prepared.shared)


def _assessed(given: str) -> Assessed:
    """The thumbs of a served model's traces. ValueError for what is no model, or where MLflow does not answer."""
    with loading():
        from mlflow.exceptions import MlflowException

        from calibadv.evaluation.models import find_models
        from calibadv.tracking.assessed import assessed
        from calibadv.tracking.served import ServedStore
    (model,) = find_models([str(found_run(given) or given)], None, {}, RECIPES / "pocket.toml")
    store = ServedStore.of(model.config, model.folder)
    try:
        return assessed(store, model.name)
    except MlflowException as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"the traces of {given} cannot be read ({said}): give the file of thumbs") from error
