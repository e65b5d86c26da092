"""A served answer as an MLflow trace under the model that gave it, and a thumb as an assessment of that trace."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibadv.config import Config
from calibadv.sendable import sendable
from calibadv.tracking.database import store_uri
from calibadv.tracking.mlflow_store import experiment_id
from calibadv.tracking.record import TurnRecord
from calibadv.tracking.registered import run_of
from calibadv.tracking.target import Target
from calibadv.tracking.traces import PREVIEW, send_trace, span, token_usage, turn_spans

if TYPE_CHECKING:
    from mlflow import MlflowClient

THUMB = "accepted"  # the assessment's name


@dataclass(frozen=True, slots=True)
class ServedRecord:
    """One answer, for people."""

    id: str  # the response's
    model: str  # the name that it is served by
    question: str
    answer: str | None
    turns: tuple[TurnRecord, ...]
    read_tokens: int  # prompt and documents
    written_tokens: int
    begun_ms: int  # Unix time
    took_ms: int  # until the answer was whole, queues included
    failed: bool = False  # the search did not answer

    def without_words(self) -> ServedRecord:
        """The same without anything that somebody, or the agent, wrote: numbers, and ids of documents."""
        return replace(self, question="", answer=None, turns=tuple(map(_without_words, self.turns)))


def _without_words(turn: TurnRecord) -> TurnRecord:
    documents = tuple(replace(document, title=document.id, text="") for document in turn.documents)
    return replace(turn, think="", text="", query=None, answer=None, documents=documents)


def served_trace_id(response_id: str) -> str:
    """MLflow's id of an answer's trace."""
    return f"tr-{uuid.uuid5(uuid.NAMESPACE_OID, f'served {response_id}').hex}"


@dataclass
class ServedStore:
    """Where answers of the model in `folder` are written: its run's store and experiment, or else `experiment`.

    `uri`: of the store, for a model of no run of ours; "" = the database in `runs`. It is met at the first use.
    Every method raises what MLflow raises.
    """

    folder: Path
    experiment: str
    uri: str
    runs: Path
    _home: Home | None = field(default=None, init=False)

    @staticmethod
    def of(config: Config, folder: Path) -> ServedStore:
        """The store of the model in `folder`, which is asked under that configuration."""
        tracking, runs = config.tracking, config.run.folder.absolute()
        return ServedStore(folder.absolute(), tracking.experiment, tracking.mlflow_uri, runs)

    def write(self, record: ServedRecord) -> None:
        """The answer as a trace: a root span from question to answer, and under it a span a turn."""
        from mlflow.entities import Span, TraceInfo, TraceLocation, TraceState
        from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

        record = sendable(record)
        home, own_id = self.home(), served_trace_id(record.id)
        begun_ns, took_ns = 1_000_000 * record.begun_ms, 1_000_000 * max(1, record.took_ms)
        tokens = token_usage(record.read_tokens, record.written_tokens)
        root = span(
            own_id,
            0,
            "answer",
            "AGENT",
            (begun_ns, begun_ns + took_ns),
            inputs={"question": record.question} if record.question else None,
            outputs=None if record.answer is None else {"answer": record.answer},
            attributes={"response_id": record.id, "mlflow.chat.tokenUsage": tokens},
        )
        turns = turn_spans(own_id, record.turns, begun_ns, credit=False)
        metadata = {TraceMetadataKey.TOKEN_USAGE: json.dumps(tokens), TraceMetadataKey.SOURCE_RUN: home.run_id}
        info = TraceInfo(
            trace_id=own_id,
            trace_location=TraceLocation.from_experiment_id(home.experiment_id),
            request_time=record.begun_ms,
            execution_duration=record.took_ms,
            state=TraceState.ERROR if record.failed else TraceState.OK,
            request_preview=record.question[:PREVIEW],
            response_preview=(record.answer or "")[:PREVIEW],
            trace_metadata={
                name: value
                for name, value in {**metadata, TraceMetadataKey.MODEL_ID: home.model_id}.items()
                if value is not None
            },
            tags={
                TraceTagKey.TRACE_NAME: f"served by {record.model}",
                "served": record.model,
                "response_id": record.id,
                "searches": str(sum(turn.kind == "search" for turn in record.turns)),
            },
        )
        send_trace(home.uri, home.experiment_id, info, [Span.from_dict(one) for one in (root, *turns)])

    def rate(self, response_id: str, *, accepted: bool, comment: str) -> None:
        """The thumb as the assessment `accepted` of the answer's trace, which must be there; the comment its reason."""
        from mlflow.entities import AssessmentSource, Feedback
        from mlflow.tracing.client import TracingClient

        own_id = served_trace_id(response_id)
        source = AssessmentSource(source_type="HUMAN", source_id="page")
        thumb = Feedback(name=THUMB, value=accepted, rationale=comment or None, source=source, trace_id=own_id)
        TracingClient(self.home().uri).log_assessment(own_id, thumb)

    def home(self) -> Home:
        """Where its traces are."""
        if self._home is None:
            self._home = _home(self)
        return self._home


@dataclass(frozen=True, slots=True)
class Home:
    """Where traces of a model belong; a model of no run of ours has neither run nor logged model."""

    uri: str
    experiment_id: str
    run_id: str | None = None
    model_id: str | None = None


def _home(store: ServedStore) -> Home:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    trained = [(folder, target) for folder in store.folder.parents[:3] if (target := Target.read(folder))]
    uri = store.uri or store_uri(store.runs)
    run_id = run_of(store.folder)
    if trained:
        folder, target = trained[0]
        uri, run_id = target.uri or store_uri(folder.parent), target.run_id
    client = MlflowClient(uri)
    if run_id is not None:
        try:
            experiment = str(client.get_run(run_id).info.experiment_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            return Home(uri, experiment, run_id, _model_id(client, experiment, run_id, store.folder))
    return Home(uri, experiment_id(client, store.experiment, uri))


def _model_id(client: MlflowClient, experiment: str, run_id: str, folder: Path) -> str | None:
    """Of the run's logged model in that folder: the one of its checkpoint, or else the final one."""
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    at = [model for model in models if model.tags.get("policy") == str(folder)]
    final = [model for model in models if model.tags.get("final") == "true"]
    return next((str(model.model_id) for model in (*at, *final)), None)
