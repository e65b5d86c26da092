"""What a run leaves in a real MLflow store, and what happens while there is none."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from calibadv.plots.run import write_overview
from calibadv.tracking.catch_up import catch_up
from calibadv.tracking.mlflow_run import MlflowRun, RunStatus
from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.provenance import provenance
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.target import Target
from tests.tracking.fake_run import history, record

DEAD = "http://127.0.0.1:9"


def client(runs: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")


def test_params_metrics_artifacts_and_status_arrive(runs: Path) -> None:
    folder = runs / "whole"
    with MlflowRun(folder, tags={"method": "calibadv"}) as run:
        run.log_params({"optim": {"lr": 5e-7}, "notes": "x" * 9000, "empty": {}})
        run.log_metrics(1, {"reward/mean": 0.25, "policy/ppl": math.nan})
        run.log_metrics(2, {"reward/mean": 0.5, "step": 2})
        run.log_tags({"dataset": "pocket"})
        (folder / "plots").mkdir()
        (folder / "plots" / "overview.png").write_bytes(b"png")
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        run.log_artifact(folder / "plots" / "overview.png", "plots")
        run.log_artifact(folder / "model", "model")
        run.log_artifact(folder / "gone.txt")  # a missing file is dropped, the rest arrives
    assert run.run_id is not None
    stored = client(runs).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "whole"
    assert stored.info.end_time >= stored.info.start_time
    assert stored.data.tags["method"] == "calibadv"
    assert stored.data.tags["dataset"] == "pocket"
    assert stored.data.params["optim.lr"] == "5e-07"
    assert len(stored.data.params["notes"]) == 6000
    assert stored.data.metrics == {"reward/mean": 0.5}
    history = client(runs).get_metric_history(run.run_id, "reward/mean")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5)]
    assert stored.info.artifact_uri.startswith((runs / "mlartifacts").as_uri())
    names = {file.path for part in ("plots", "model") for file in client(runs).list_artifacts(run.run_id, part)}
    assert names == {"plots/overview.png", "model/config.json"}


def test_a_name_that_mlflow_refuses_takes_nothing_else_with_it(runs: Path) -> None:
    path = runs / "named"
    with RunFolder(path) as folder, MlflowRun(path, tags={"who?": "me"}) as run:
        folder.append_metrics(1, {"reward/mean": 0.5, "eval/f1_nq (open)": 0.25, "eval/f1_ä+b": 0.75})
        run.log_metrics(1, {"eval/a,b/f1": 1.0, "eval/../em": 0.0})
        run.log_params({"rollout": {"template_arguments": {"a&b": 1, "c": 2}}})
        run.log_version(1, ["reward/mean", "eval/f1_nq (open)"], {})
    assert run.run_id is not None
    stored = client(runs).get_run(run.run_id)
    assert stored.data.metrics == {
        "reward/mean": 0.5,
        "eval/f1_nq -open-": 0.25,
        "eval/f1_ä-b": 0.75,
        "eval/a-b/f1": 1.0,
        "em": 0.0,
    }
    arguments = {"rollout.template_arguments.a-b": "1", "rollout.template_arguments.c": "2"}
    assert stored.data.params == arguments
    assert stored.data.tags["who-"] == "me"
    (model,) = client(runs).search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'")
    assert {metric.key for metric in model.metrics} == {"reward/mean", "eval/f1_nq -open-"}


def test_a_rollout_is_a_trace_linked_to_its_run(runs: Path) -> None:
    with RunFolder(runs / "traced") as folder, MlflowRun(folder.path, experiment="traces") as run:
        folder.append_rollouts([record(step=3)])
    assert run.run_id is not None
    experiment = client(runs).get_experiment_by_name("traces")
    (trace,) = client(runs).search_traces(locations=[experiment.experiment_id], run_id=run.run_id)
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.run_id
    assert trace.info.tags["step"] == "3"
    assert trace.info.request_preview == "step 3 · Where was the director born?"
    assert trace.info.tags["question_id"] == "pocket/7"
    assert trace.info.tags["reward"] == "0"
    read = record().read_tokens
    assert trace.info.token_usage == {"input_tokens": read, "output_tokens": 5, "total_tokens": read + 5}
    assert {a.name: a.value for a in trace.info.assessments} == {
        "reward": 0.0,
        "f1": 0.0,
        "format": 1.0,
        "silver_score": 0.5,
        "advantage": pytest.approx(-0.8),  # (2 * -0.5 + 3 * -1) / 5
    }
    for asked, found in (("advantage < -0.5", 1), ("advantage > -0.5", 0), ("silver_score >= 0.5", 1)):
        figure, limit = asked.split(" ", 1)
        traces = client(runs).search_traces(
            locations=[experiment.experiment_id], filter_string=f"feedback.{figure} {limit}"
        )
        assert len(traces) == found, asked
    written_ms = json.loads((runs / "traced" / "rollouts.jsonl").read_text())["written_ms"]
    assert trace.info.request_time + trace.info.execution_duration == written_ms
    assert trace.info.trace_metadata["mlflow.trace.session"] == f"{run.run_id[:8]} step 3 pocket/7"
    root, search, answer = sorted(trace.data.spans, key=lambda span: str(span.span_id))
    assert root.inputs == {"question": "Where was the director born?"}
    assert root.outputs == {"answer": "Ada", "golden_answers": ["Brenholt"]}
    assert {search.parent_id, answer.parent_id} == {root.span_id}
    assert search.name == "1 search (-1.00 → -0.50, c 0.50)"
    assert search.inputs == {"think": "Who made it?", "query": "q"}
    assert [(doc["id"], doc["metadata"]["title"]) for doc in search.outputs] == [
        ("d0", "The Salt Road"),
        ("d9", "d9"),
    ]
    wanted = ("kind", "silver_score", "advantage_before", "advantage_after")
    assert [search.attributes[name] for name in wanted] == ["search", 0.5, -1.0, -0.5]
    spans = [
        (span.start_time_ns - root.start_time_ns, span.end_time_ns - root.start_time_ns) for span in trace.data.spans
    ]
    assert sorted(spans) == [(0, 1_750_000_000), (0, 2_250_000_000), (1_750_000_000, 2_250_000_000)]
    assert trace.info.execution_duration == 2250
    assert (search.attributes["generate_s"], search.attributes["search_s"]) == (1.5, 0.25)
    assert answer.outputs["answer"] == "Ada"
    assert "silver_score" not in answer.attributes


@pytest.mark.parametrize("half", [{"query": "what \ud83d"}, {"documents": ()}, {"think": "\ud83d", "text": "\ud83d"}])
def test_half_a_character_in_a_rollout_ends_no_tracking(runs: Path, half: dict[str, Any]) -> None:
    one, name = record(step=3), f"half {next(iter(half))}"
    turn = one.turns[0]
    if "documents" in half:
        half = {"documents": (replace(turn.documents[0], title="\ud83d", text="a \ud83d"),)}
    with RunFolder(runs / name) as folder, MlflowRun(folder.path, experiment=name, first_pause_s=0.1) as run:
        whole = replace(one, question="who \ud83d?", turns=(replace(turn, **half), *one.turns[1:]))
        folder.append_rollouts([whole, record(step=4)])
        folder.append_metrics(1, {"reward/mean": 0.5})
        run.log_tags({"half \ud83d": "\ud83d"})
        run.log_params({"half": "\ud83d"})
        assert run.close(timeout_s=60.0) == 0
    stored = client(runs).get_run(str(run.run_id))
    assert (stored.info.status, stored.data.metrics["reward/mean"]) == ("FINISHED", 0.5)
    traces = client(runs).search_traces(locations=[stored.info.experiment_id])
    assert sorted(trace.info.request_preview for trace in traces) == [
        "step 3 · who ??",
        "step 4 · Where was the director born?",
    ]


def test_a_run_says_who_made_it_and_shows_its_figures_and_its_machine(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs / "described"
    monkeypatch.setenv("LOGNAME", "ada")
    with MlflowRun(folder, tags={"mlflow.runColor": "#123456"}) as run:
        run.log_note("| held-out questions | before | after |")
        run.log_system_metrics(every_s=0.05)
        write_overview(history(), folder)
        for step in (8, 12):
            run.log_image_metric(folder / "overview.png", "overview", step)
        assert run.wait_connected(60)
        time.sleep(0.5)
    assert run.run_id is not None
    stored = client(runs).get_run(run.run_id)
    tags = stored.data.tags
    assert tags["mlflow.note.content"] == "| held-out questions | before | after |"
    assert (tags["mlflow.user"], tags["mlflow.runColor"]) == ("ada", "#123456")
    assert stored.info.user_id == "ada"
    commit = provenance()["mlflow.source.git.commit"]
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", commit)
    assert tags["mlflow.source.git.commit"] == commit
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= stored.data.metrics.keys()
    images = [Path(file.path).name for file in client(runs).list_artifacts(run.run_id, "images")]
    assert {match[1] for name in images if (match := re.match(r"overview.step.(\d+)\D", name))} == {"8", "12"}
    assert run.experiment_id == stored.info.experiment_id


def test_a_run_goes_on_in_its_own_folder(runs: Path) -> None:
    with MlflowRun(runs / "resumed") as first:
        first.log_metrics(1, {"x": 1.0})
    with MlflowRun(runs / "resumed") as second:
        second.log_metrics(2, {"x": 2.0})
    assert first.run_id == second.run_id is not None
    assert len(client(runs).get_metric_history(first.run_id, "x")) == 2


def steps_of(runs: Path, run_id: str, metric: str) -> list[tuple[int, float]]:
    return sorted((value.step, value.value) for value in client(runs).get_metric_history(run_id, metric))


def test_a_killed_and_resumed_run_has_each_step_and_rollout_once_and_all_of_them(runs: Path) -> None:
    path = runs / "repeated"
    with RunFolder(path) as folder, MlflowRun(path, experiment="repeated") as first:
        folder.append_metrics(0, {"eval/f1": 0.5})
        folder.append_metrics(1, {"reward/mean": 0.1, "time/step_s": 1.0})
        kept = {name: folder.content(name) for name in ("metrics.jsonl", "rollouts.jsonl")}
        folder.append_metrics(2, {"reward/mean": 0.2, "time/step_s": 1.0})
        folder.append_rollouts([record(step=2)])
        write_overview(history(), path)
        first.log_image_metric(path / "overview.png", "overview", 2)
    assert first.run_id is not None
    # As if the process had been killed after a delivery and before it was remembered.
    state = json.loads((path / "mlflow.json").read_text())
    (path / "mlflow.json").write_text(json.dumps(state | {"offsets": {}}))
    with RunFolder(path, resume=True) as folder:
        folder.restore(kept, 1)
        with MlflowRun(path, experiment="repeated") as second:
            folder.append_metrics(2, {"reward/mean": 0.2, "time/step_s": 2.0})  # made again
            folder.append_rollouts([record(step=2)])
            second.log_image_metric(path / "overview.png", "overview", 2)
            folder.append_metrics(3, {"reward/mean": 0.3, "time/step_s": 2.0})
            folder.append_metrics(2, {"eval/f1": 0.6})  # a line of its own: that step was not evaluated before
            folder.append_rollouts([record(step=3)])
    assert second.run_id == first.run_id
    assert steps_of(runs, first.run_id, "reward/mean") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert steps_of(runs, first.run_id, "time/step_s") == [(1, 1.0), (2, 1.0), (3, 2.0)]
    assert steps_of(runs, first.run_id, "eval/f1") == [(0, 0.5), (2, 0.6)]
    experiment = client(runs).get_experiment_by_name("repeated")
    traces = client(runs).search_traces(locations=[experiment.experiment_id], run_id=first.run_id)
    assert sorted(trace.info.tags["step"] for trace in traces) == ["2", "3"]
    images = [file.path for file in client(runs).list_artifacts(first.run_id, "images")]
    assert len([name for name in images if name.endswith(".png")]) == 1
    assert client(runs).get_run(first.run_id).info.status == "FINISHED"


def test_steps_made_again_before_mlflow_is_asked_all_arrive_though_their_file_was_longer(runs: Path) -> None:
    path = runs / "outgrown"
    with RunFolder(path) as folder, MlflowRun(path, experiment="outgrown") as first:
        folder.append_metrics(1, {"reward/mean": 0.1})
        kept = {"metrics.jsonl": folder.content("metrics.jsonl"), "rollouts.jsonl": None}
        folder.append_metrics(2, {"reward/mean": 0.2, "time/step_s": 1.0, "time/learn_s": 0.5})
        folder.append_rollouts([record(step=2)])
    assert first.run_id is not None
    with RunFolder(path, resume=True) as folder:
        folder.restore(kept, 1)
        for step in (2, 3, 4):
            folder.append_metrics(step, {"reward/mean": step / 10})
            folder.append_rollouts([record(step=step)])
        with MlflowRun(path, experiment="outgrown"):
            pass
    assert steps_of(runs, first.run_id, "reward/mean") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    experiment = client(runs).get_experiment_by_name("outgrown")
    traces = client(runs).search_traces(locations=[experiment.experiment_id], run_id=first.run_id)
    assert sorted(trace.info.tags["step"] for trace in traces) == ["2", "3", "4"]


def test_an_exception_ends_the_run_as_failed_and_ctrl_c_as_killed(runs: Path) -> None:
    ended = {}
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), MlflowRun(runs / error.__name__) as run:
            raise error
        assert run.run_id is not None
        ended[error] = client(runs).get_run(run.run_id).info.status
    assert ended == {RuntimeError: RunStatus.FAILED, KeyboardInterrupt: RunStatus.KILLED}


def test_a_dead_server_raises_nothing_and_a_live_store_catches_up_with_the_folder(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs / "orphan"
    with RunFolder(path) as folder:
        with MlflowRun(path, uri=DEAD, experiment="orphans") as run:
            folder.append_metrics(1, {"reward/mean": 0.5})
            folder.append_rollouts([record()])
            (path / "note.txt").write_text("kept")
            run.log_artifact(path / "note.txt")
        assert run.run_id is None
        assert "lacks 5 lines of" in caplog.text  # a step, a rollout; start, artifact, end
        assert f"python -m calibadv.tracking.catch_up {path}" in caplog.text
        with pytest.raises(ValueError, match="is being written by process"):
            catch_up(path)

    uri = f"sqlite:///{runs / 'mlflow.db'}"
    assert catch_up(path, uri) == 0
    assert catch_up(path) == 0  # it belongs to that store now, which has everything
    (path / "report.html").write_text("written later")
    assert catch_up(path, artifact=path / "report.html") == 0
    target = Target.read(path)
    assert target is not None
    assert target.run_id is not None
    stored = client(runs).get_run(target.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.start_time == target.begun_ms
    assert stored.data.metrics == {"reward/mean": 0.5}
    kept = sorted(file.path for file in client(runs).list_artifacts(target.run_id))
    assert kept == ["note.txt", "report.html"]
    experiment = client(runs).get_experiment_by_name("orphans")
    assert len(client(runs).search_traces(locations=[experiment.experiment_id], run_id=target.run_id)) == 1


def test_a_store_that_goes_away_in_the_middle_has_every_step_once_when_it_is_back(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down, tried = threading.Event(), threading.Event()

    class WithoutAnswer(MlflowStore):
        def _carry_out(self, *arguments: Any) -> None:
            super()._carry_out(*arguments)
            if down.is_set():
                tried.set()
                raise ConnectionError("no answer")  # though it was done

    path, options = runs / "middle", {"first_pause_s": 0.01, "store": WithoutAnswer}
    with RunFolder(path) as folder, MlflowRun(path, experiment="middle", **options) as run:
        folder.append_metrics(1, {"reward/mean": 0.1})
        assert run.wait_connected(60)
        down.set()
        for step in (2, 3):
            folder.append_metrics(step, {"reward/mean": 0.1})
        assert tried.wait(60)
        down.clear()
        folder.append_metrics(4, {"reward/mean": 0.1})
    assert run.run_id is not None
    assert [step for step, _ in steps_of(runs, run.run_id, "reward/mean")] == [1, 2, 3, 4]
    assert caplog.text.count("training goes on") == caplog.text.count("MLflow answers again") == 1
    assert client(runs).get_run(run.run_id).info.status == "FINISHED"


def test_catching_up_with_a_folder_that_was_never_tracked_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mlflow.json is missing"):
        catch_up(tmp_path)
