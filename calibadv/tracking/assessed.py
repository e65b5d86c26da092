"""Thumbs out of MLflow: the assessments of served answers' traces, those that people gave on MLflow's own pages too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibadv.data.preparation.feedback import Thumb
from calibadv.tracking.served import THUMB, ServedStore

if TYPE_CHECKING:
    from mlflow.entities import Trace

_AT_ONCE = 200  # traces of one request


@dataclass(frozen=True, slots=True)
class Assessed:
    """What was said of a model's answers."""

    thumbs: tuple[Thumb, ...]  # in the order in which they were given
    wordless: int  # thumbs of traces that were kept without words
    place: str  # the store, for people


def assessed(store: ServedStore, model: str) -> Assessed:
    """The thumbs of all traces of the store's model; of a model of no run of ours, those served by the name `model`.

    A thumb is an assessment `accepted` that is true or false, whoever gave it. Raises what MLflow raises.
    """
    from mlflow import MlflowClient

    home = store.home()
    if home.model_id is not None:
        which = f"metadata.`mlflow.modelId` = '{home.model_id}'"
    elif home.run_id is not None:
        which = f"metadata.`mlflow.sourceRun` = '{home.run_id}'"
    else:
        which = f"tags.served = '{model}'"
    client, found, page = MlflowClient(home.uri), [], None
    while True:
        traces = client.search_traces(
            locations=[home.experiment_id],
            filter_string=f"feedback.{THUMB} IS NOT NULL AND {which}",
            max_results=_AT_ONCE,
            page_token=page,
        )
        found += [thumb for trace in traces for thumb in _thumbs(trace)]
        page = traces.token
        if not page:
            break
    thumbs = [thumb for _, thumb in sorted(found, key=lambda timed: timed[0])]
    worded = tuple(thumb for thumb in thumbs if thumb.question)
    return Assessed(worded, len(thumbs) - len(worded), home.uri)


def _thumbs(trace: Trace) -> Iterator[tuple[int, Thumb]]:
    """Each with the time at which it was given, Unix time in ms."""
    (root,) = (span for span in trace.data.spans if span.parent_id is None)
    question, answer = (root.inputs or {}).get("question", ""), (root.outputs or {}).get("answer", "")
    response, model = trace.info.tags["response_id"], trace.info.tags["served"]
    for said in trace.info.assessments:
        if said.name != THUMB or said.feedback is None or said.valid is False:  # False: another one overrides it
            continue
        if isinstance(said.feedback.value, bool):
            given_ms = said.last_update_time_ms or said.create_time_ms or 0
            yield given_ms, Thumb(response, question, answer.strip(), said.feedback.value, model)
