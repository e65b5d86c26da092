"""A tracker that remembers what it is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibadv.tracking.data_sets import DataSet
from calibadv.types import Question


class Told:
    """A `Tracker` without a store; a context manager, as an `MlflowRun` is."""

    run_id, experiment_id, uri = "none", "0", "nowhere"

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        self.notes: list[str] = []
        self.metrics: dict[int, dict[str, float]] = {}
        self.artifacts: list[tuple[str, str | None]] = []
        self.registered: list[tuple[str, str]] = []
        self.inputs: dict[str, int] = {}  # context -> rows
        self.questions: list[str] = []
        self.versions: dict[int, set[str]] = {}  # step -> its metrics
        self.version_tags: dict[int, dict[str, str]] = {}
        self.images: list[tuple[str, int]] = []

    def log_params(self, config: Mapping[str, Any]) -> None:
        self.params |= config

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags

    def log_note(self, note: str) -> None:
        self.notes.append(note)

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.metrics.setdefault(step, {}).update(metrics)

    def log_artifact(self, path: Path, to: str | None = None) -> None:
        self.artifacts.append((path.name, to))

    def register(self, name: str, card: str) -> None:
        self.registered.append((name, card))

    def log_inputs(self, data: Sequence[DataSet]) -> None:
        self.inputs |= {given.context: given.rows for given in data}

    def log_questions(self, data: DataSet, questions: Sequence[Question]) -> None:
        assert data.context == "test"
        self.questions += [question.text for question in questions]

    def log_version(
        self,
        step: int,
        metrics: Collection[str],
        tags: Mapping[str, str],
        *,
        data: DataSet | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        assert data is None or data.context == "test"
        assert all(file.is_file() for file in files)
        self.versions.setdefault(step, set()).update(metrics)
        self.version_tags.setdefault(step, {}).update(tags)

    def log_version_tags(self, step: int, tags: Mapping[str, str]) -> None:
        self.version_tags.setdefault(step, {}).update(tags)

    def log_image_metric(self, path: Path, key: str, step: int) -> None:
        assert path.is_file()
        self.images.append((key, step))

    def log_system_metrics(self) -> None:
        pass

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        pass
