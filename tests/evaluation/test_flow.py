"""evaluate.py from command to table with the real policy, dialogue and files; Ray, Serve and MLflow are played.

`test_run.py` has the same with the real ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calibadv.cluster.rollout_worker import WorkerSettings
from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.evaluation.models import EvaluatedModel
from calibadv.evaluation.plan import Plan, make_plan
from calibadv.rollout.protocols import SearchFailed
from calibadv.tracking.folder_lock import FolderLock, FolderLocked
from calibadv.types import Document
from tests.build import jsonl
from workflows.evaluate import evaluate, search_app
from workflows.evaluation_options import parse_command

QUESTIONS = 6
DOCUMENT = Document("d", "Lost Valley", "director of Lost Valley is Fiona Mason")


class PlayedRun:
    """A run of MLflow that remembers what it was given."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.artifacts: list[tuple[str, str | None]] = []

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        assert step == 0
        self.metrics |= metrics

    def log_artifact(self, path: Path, to: str | None = None) -> None:
        assert path.is_file()
        self.artifacts.append((path.name, to))

    def __enter__(self) -> PlayedRun:
        return self

    def __exit__(self, *_: object) -> None: ...


class Machinery:
    """What stands in for the cluster: how often it was started, when it is interrupted, which searches fail."""

    def __init__(self) -> None:
        self.streams: list[int] = []  # rows of each stream
        self.apps: list[str] = []  # of each search that was started
        self.interrupt_after: int | None = None
        self.failing_searches = 0
        self.settings: WorkerSettings | None = None
        self.runs: dict[str, PlayedRun] = {}  # of MLflow, by model

    def evaluate(self, arguments: list[str]) -> int:
        """evaluate.py's exit code with these parts in the place of the cluster's and MLflow's."""
        plan = make_plan(parse_command(arguments))
        return evaluate(plan, self.searching, self.stream_rollouts, self.open_run)

    def open_run(self, _: object, model: EvaluatedModel) -> Any:
        return self.runs.setdefault(model.name, PlayedRun())

    @contextmanager
    def searching(self, plan: Plan) -> Iterator[Any]:
        self.apps.append(search_app(plan))
        yield lambda: self.search

    async def search(self, _: str) -> tuple[Document, ...]:
        if self.failing_searches:
            self.failing_searches -= 1
            raise SearchFailed("as asked")
        return (DOCUMENT,)

    def stream_rollouts(self, rows: Sequence[RolloutRow], settings: WorkerSettings, _: object) -> Iterator[Any]:
        self.streams.append(len(rows))
        self.settings = settings
        engine, roll = settings.engine_factory(), settings.rollout_factory()
        try:
            for number, row in enumerate(reversed(rows)):  # as they are done, in any order
                if number == self.interrupt_after:
                    raise KeyboardInterrupt
                yield FinishedRow(row.phase, row.step, row.index, "e0", asyncio.run(roll(row, engine, 0)))
        finally:
            engine.close()


@pytest.fixture
def machinery() -> Machinery:
    return Machinery()


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Six questions of two sets to the pocket policy, which answers within a second."""
    rows = [
        {
            "id": str(i),
            "question": "Who is the director of Lost Valley?",
            "golden_answers": ["Fiona Mason"],
            "metadata": {"hops": 1 + i % 2},
        }
        for i in range(QUESTIONS)
    ]
    for name, part in (("one", rows[:4]), ("two", rows[4:])):
        jsonl(tmp_path / f"{name}.jsonl", *part)
    (tmp_path / "corpus.jsonl").write_text(
        json.dumps({"id": "d", "title": "Lost Valley", "text": DOCUMENT.text}) + "\n"
    )
    sets = [part for name in ("one", "two") for part in ("--set", f"{name}={tmp_path / name}.jsonl")]
    settings = ["--rollout.engine", "torch", "--rollout.infra_retries", "0", "--run.cache", str(tmp_path / "cache")]
    return [*sets, "--corpus", str(tmp_path / "corpus.jsonl"), *settings]


def written(out: Path) -> dict[str, bytes]:
    """LastAnswer, figures and tables."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_an_interrupted_evaluation_goes_on_to_the_same_files(
    machinery: Machinery, arguments: list[str], tmp_path: Path
) -> None:
    assert machinery.evaluate(["pocket", *arguments, "--out", str(tmp_path / "whole")]) == 0
    whole = written(tmp_path / "whole")
    assert {"table.md", "table.csv", "pocket/one/predictions.jsonl", "pocket/two/metrics.json"} <= set(whole)

    again = ["pocket", *arguments, "--out", str(tmp_path / "cut")]
    machinery.interrupt_after = 4
    with pytest.raises(KeyboardInterrupt):
        machinery.evaluate(again)
    assert "table.md" not in written(tmp_path / "cut")
    torn = tmp_path / "cut" / "pocket" / "one" / "predictions.jsonl"
    torn.write_bytes(torn.read_bytes()[:-9])  # a crash, in the middle of a line

    machinery.interrupt_after = None
    assert machinery.evaluate(again) == 0
    assert written(tmp_path / "cut") == whole
    assert machinery.streams == [6, 6, 3]  # two of four answers to the first set were lost or never given

    assert machinery.evaluate(again) == 0
    assert machinery.streams == [6, 6, 3]  # nothing was left to ask, so nothing was started
    assert written(tmp_path / "cut") == whole


def test_what_another_process_answers_loses_its_search_to_no_second_command(
    machinery: Machinery, arguments: list[str], tmp_path: Path
) -> None:
    first = ["pocket", *arguments, "--out", str(tmp_path / "out")]
    (folder := tmp_path / "out" / "pocket" / "one").mkdir(parents=True)
    lock = FolderLock(folder, "")
    with pytest.raises(FolderLocked, match="is being written by process"):
        machinery.evaluate(first)
    assert machinery.apps == []
    lock.close()
    for command in (
        first,
        ["again=pocket", *arguments, "--out", str(tmp_path / "out")],
        [*first, "--out", str(tmp_path / "other")],
    ):
        machinery.evaluate(command)
    assert len(set(machinery.apps)) == 3  # side by side none has another's app
    for path in tmp_path.glob("out/pocket/*/predictions.jsonl"):
        path.unlink()
    machinery.evaluate(first)
    assert machinery.apps[3] == machinery.apps[0]  # its own, which it replaces


def test_every_question_is_asked_by_the_engines_own_weights_and_tracked(
    machinery: Machinery, arguments: list[str], tmp_path: Path
) -> None:
    assert machinery.evaluate(["pocket", "again=pocket", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert machinery.settings is not None
    assert machinery.settings.weights == "own"
    lines = (tmp_path / "out" / "pocket" / "one" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"one/{i}" for i in range(4)]
    first, second = machinery.runs["pocket"], machinery.runs["again"]
    assert first.metrics == second.metrics  # greedy
    assert first.metrics["eval/one/questions"] + first.metrics["eval/two/questions"] == QUESTIONS
    assert first.metrics["eval/mean/f1"] == pytest.approx(
        (first.metrics["eval/one/f1"] + first.metrics["eval/two/f1"]) / 2
    )
    for run in (first, second):
        assert {("predictions.jsonl", "one"), ("metrics.json", "two"), ("table.md", None)} <= set(run.artifacts)
    assert first.artifacts.count(("table.md", None)) == 1  # once, with the second model's row
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| pocket |" in table
    assert "| again |" in table
    assert "1-hop | 2-hop" in table


def test_a_question_whose_search_fails_is_asked_again(
    machinery: Machinery, arguments: list[str], tmp_path: Path
) -> None:
    machinery.failing_searches = 2
    assert machinery.evaluate(["pocket", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert machinery.streams == [6, 2]
    figures = json.loads((tmp_path / "out" / "pocket" / "two" / "metrics.json").read_text())
    assert (figures["questions"], figures["infra_failed"]) == (2, 0)


def test_what_the_search_failed_for_good_is_counted_not_scored_and_asked_by_the_next_call(
    machinery: Machinery, arguments: list[str], tmp_path: Path
) -> None:
    command = ["pocket", *arguments, "--out", str(tmp_path / "out")]
    machinery.failing_searches = 10_000
    assert machinery.evaluate(command) == 1
    metrics = tmp_path / "out" / "pocket" / "one" / "metrics.json"
    failed = json.loads(metrics.read_text())
    assert (failed["questions"], failed["infra_failed"], failed["f1"]) == (4, 4, None)
    assert machinery.streams == [6, 6, 6]

    machinery.failing_searches = 0
    assert machinery.evaluate(command) == 0
    healed = json.loads(metrics.read_text())
    assert (healed["questions"], healed["infra_failed"]) == (4, 0)
    assert healed["f1"] is not None
    assert len((metrics.parent / "predictions.jsonl").read_text().splitlines()) == 4
