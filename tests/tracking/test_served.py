"""What people ask of a served model, in a real MLflow store under that model, and back as a question to train on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback
from mlflow.tracing.client import TracingClient

from calibadv.config.serve import ServeConfig
from calibadv.data.preparation.feedback import Thumb, prepare_feedback
from calibadv.data.questions import load_questions
from calibadv.tracking.assessed import assessed
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.served import ServedStore, served_trace_id
from serve.agent.app import Served, make_app
from serve.agent.traces import Traces
from tests.serve.world import Endless, InProcess, parts

ASKED = "Where was Ada born?"


def web(folder: Path, traces: Traces, model: str = "tiny") -> httpx.AsyncClient:
    app = make_app(
        Served(model, ServeConfig(), folder / "feedback.jsonl"),
        InProcess(parts(Endless())),
        clock=iter(range(1000, 2000)).__next__,
        traces=traces,
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def test_an_answer_is_a_trace_of_its_model_a_thumb_its_assessment_and_a_question_to_train_on(
    runs: Path, tmp_path: Path
) -> None:
    with MlflowRun(runs / "answers", experiment="answers") as run:
        run.log_version(4, (), {"final": "true"})
    store = ServedStore(runs / "answers" / "model", "elsewhere", "", runs)
    traces = Traces(store, 1.0, text=True)
    asking = web(tmp_path, traces)
    answered = (await asking.post("/v1/responses", json={"model": "tiny", "input": ASKED})).json()
    rating = {"response_id": answered["id"], "rating": "up", "comment": "Yes."}
    assert (await asking.post("/v1/feedback", json=rating)).status_code == 200
    traces.wait()

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    assert run.run_id is not None
    experiment = client.get_run(run.run_id).info.experiment_id
    (model,) = client.search_logged_models([experiment])
    (trace,) = client.search_traces(locations=[experiment], filter_string="feedback.accepted = 'true'")
    assert trace.info.trace_id == served_trace_id(answered["id"])
    assert trace.info.trace_metadata["mlflow.modelId"] == model.model_id
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.run_id
    assert (trace.info.request_preview, trace.info.response_preview) == (ASKED, "Oslo")
    (thumb,) = trace.info.assessments
    assert (thumb.value, thumb.rationale, thumb.source.source_type) == (True, "Yes.", "HUMAN")
    usage = answered["usage"]
    assert trace.info.token_usage == {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
    root, search, answer = sorted(trace.data.spans, key=lambda span: str(span.span_id))
    assert trace.info.execution_duration == (root.end_time_ns - root.start_time_ns) / 1e6
    assert (search.inputs["query"], answer.outputs["answer"]) == ("Ada", "Oslo")
    assert [(found["id"], found["metadata"]) for found in search.outputs] == [
        ("ada", {"doc_uri": "Ada (engineer)", "title": "Ada (engineer)"}),
        ("nils", {"doc_uri": "Nils", "title": "Nils"}),
    ]

    prepare_feedback(tmp_path / "feedback.jsonl", tmp_path / "used.parquet")
    (question,) = load_questions(tmp_path / "used.parquet")
    assert (question.text, question.golden_answers) == (ASKED, ("Oslo",))

    found = assessed(store, "tiny")
    assert found.thumbs == (Thumb(answered["id"], ASKED, "Oslo", True, "tiny"),)
    source = AssessmentSource("HUMAN", "reviewer")  # somebody says on MLflow's page that the answer is wrong
    reviewing = TracingClient(f"sqlite:///{runs / 'mlflow.db'}")
    for value in (False, "perhaps"):
        said = Feedback(name="accepted", value=value, source=source)
        reviewing.log_assessment(trace.info.trace_id, said)
    assert [thumb.accepted for thumb in assessed(store, "tiny").thumbs] == [True, False]


async def test_thumbs_of_traces_are_those_of_the_model_and_wordless_ones_are_counted(
    runs: Path, tmp_path: Path
) -> None:
    store = ServedStore(tmp_path, "of-nobody", "", runs)  # a model of no run
    for text, model in ((True, "tiny"), (False, "tiny"), (True, "other")):
        traces = Traces(store, 1.0, text=text)
        asking = web(tmp_path, traces, model)
        answered = (await asking.post("/v1/responses", json={"model": model, "input": ASKED})).json()
        await asking.post("/v1/feedback", json={"response_id": answered["id"], "rating": "up"})
        traces.wait()
    found = assessed(store, "tiny")
    assert [(thumb.question, thumb.answer, thumb.model) for thumb in found.thumbs] == [(ASKED, "Oslo", "tiny")]
    assert found.wordless == 1


class Kept:
    """A store that keeps what it is given, or refuses it."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.records: list[Any] = []
        self.rated: list[str] = []
        self._refuses = refuses

    def write(self, record: Any) -> None:
        if self._refuses:
            raise RuntimeError("no store\nat all")
        self.records.append(record)

    def rate(self, response_id: str, *, accepted: bool, comment: str) -> None:
        self.rated.append(f"{response_id} {accepted} {comment}")


async def test_without_leave_no_word_of_anybody_is_kept_and_of_a_share_thumbs_follow_their_answers(
    tmp_path: Path,
) -> None:
    kept = Kept()
    traces = Traces(kept, 0.5, text=False)
    asking = web(tmp_path, traces)
    ids = [(await asking.post("/v1/responses", json={"model": "tiny", "input": ASKED})).json()["id"] for _ in range(40)]
    for one in ids:
        rating = {"response_id": one, "rating": "down", "comment": "Ada was born in Bergen."}
        assert (await asking.post("/v1/feedback", json=rating)).status_code == 200
    traces.wait()
    assert 5 <= len(kept.records) <= 35
    assert kept.rated == [f"{record.id} False " for record in kept.records]
    said = str(kept.records)
    assert not any(word in said for word in ("Ada", "Oslo", "born", "clear", "Nils"))
    assert [document.id for document in kept.records[0].turns[0].documents] == ["ada", "nils"]
    assert kept.records[0].written_tokens > 0


def test_of_an_answer_outside_the_share_nothing_is_made() -> None:
    kept, made = Kept(), list[str]()
    traces = Traces(kept, 1e-12, text=True)

    def record() -> Any:
        made.append("a record")

    traces.answered("resp_1", record)
    traces.wait()
    assert kept.records == made == []


async def test_a_store_that_takes_nothing_costs_no_answer_and_is_said_once(tmp_path: Path, caplog: Any) -> None:
    traces = Traces(Kept(refuses=True), 1.0, text=True)
    asking = web(tmp_path, traces)
    for _ in range(3):
        assert (await asking.post("/v1/responses", json={"model": "tiny", "input": ASKED})).status_code == 200
    traces.wait()
    assert caplog.text.count("MLflow takes no trace of an answer (RuntimeError: no store)") == 1


class Slow(Kept):
    """A store that takes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, record: Any) -> None:
        self.go.wait(30)
        super().write(record)


async def test_what_waits_to_be_written_is_written_before_the_app_ends_and_not_waited_for_for_ever(
    tmp_path: Path, caplog: Any
) -> None:
    slow = Slow()
    traces = Traces(slow, 1.0, text=True)
    app = make_app(Served("tiny", ServeConfig(), tmp_path / "f.jsonl"), InProcess(parts(Endless())), traces=traces)
    asking = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app):
        for _ in range(3):
            await asking.post("/v1/responses", json={"model": "tiny", "input": ASKED})
        assert slow.records == []
        assert traces.flush(0.01) == 3
        assert "3 traces of answers and thumbs were not written in 0.01 s" in caplog.text
        slow.go.set()
    assert len(slow.records) == 3
