"""The EnvRunner over a stream of rows that arrive in any order, fail, or stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibadv.cluster.rows import FinishedRow
from calibadv.rllib.env_runner import RolloutEnvRunner, SampleProgress, StepSample
from calibadv.rollout.group import RolledGroup, without_documents
from calibadv.types import Document, Group, Phase, Question
from tests.build import group, trajectory
from tests.rllib.conftest import algorithm_config, settings

ADA = Document("ada", "Ada", "Born in Oslo.")


@dataclass(frozen=True)
class Stream:
    """Yields `rows`, then raises `error` if there is one. `expected` None: it cannot even be opened."""

    rows: Sequence[FinishedRow]
    expected: dict[tuple[Phase, int], int] | None
    error: Exception | None = None

    def open(self) -> tuple[dict[tuple[Phase, int], int], Iterator[FinishedRow]]:
        if self.expected is None:
            raise ValueError("no such file")
        return self.expected, self._iterate()

    def _iterate(self) -> Iterator[FinishedRow]:
        yield from self.rows
        if self.error is not None:
            raise self.error


def question(name: str) -> Question:
    return Question(f"test/{name}", f"{name}?", ("Ada",))


def row(
    phase: Phase,
    step: int,
    index: int,
    *,
    engine: str = "e0",
    lost: int = 0,
    dropped: bool = False,
    documents: dict[str, Document] | None = None,
) -> FinishedRow:
    """`documents` None: not sampled for people."""
    members: Group | None = group(trajectory(1.0, [2, 1]), question=question(f"{phase}-{step}-{index}"))
    rolled = RolledGroup(None if dropped else members, lost, documents or {})
    kept = documents is not None
    return FinishedRow(phase, step, index, engine, rolled if kept else without_documents(rolled), kept)


def runner(rows: Sequence[FinishedRow], *, missing: int = 0, error: Exception | None = None) -> RolloutEnvRunner:
    """Over a stream that gives `rows`; its last step would have `missing` more."""
    expected = Counter((r.phase, r.step) for r in rows)
    if missing:
        expected[rows[-1].phase, rows[-1].step] += missing
    return of(Stream(rows, expected, error))


def of(stream: Stream) -> RolloutEnvRunner:
    config = algorithm_config(Path(), settings())
    config.stream = stream  # type: ignore[assignment]
    return RolloutEnvRunner(config=config)


def names(groups: list[Group]) -> list[str]:
    return [g.question.id for g in groups]


T, E = Phase.TRAIN, Phase.EVAL


def test_rows_are_collected_by_phase_and_step_in_question_order() -> None:
    rows = [row(E, 0, 1), row(T, 0, 2), row(T, 1, 0), row(E, 0, 0), row(T, 0, 0), row(T, 1, 1), row(T, 0, 1)]
    env_runner = runner(rows)
    assert names(env_runner.sample(phase=E, step=0).groups) == ["test/eval-0-0", "test/eval-0-1"]
    assert names(env_runner.sample(phase=T, step=0).groups) == [f"test/train-0-{i}" for i in range(3)]
    assert names(env_runner.sample(phase=T, step=1).groups) == ["test/train-1-0", "test/train-1-1"]


def test_a_step_is_complete_before_the_stream_is() -> None:
    # The rows of step 1 are only made from the weights that step 0 leads to: waiting for more would never end.
    env_runner = runner([row(T, 0, 0), row(T, 0, 1), row(T, 1, 0)], missing=1)
    assert len(env_runner.sample(phase=T, step=0).groups) == 2


def test_losses_of_the_environment_are_counted_and_dropped_questions_left_out() -> None:
    rows = [row(T, 0, 0, lost=1), row(T, 0, 1, lost=3, dropped=True), row(T, 0, 2, engine="e1")]
    sample = runner(rows).sample(phase=T, step=0)
    assert names(sample.groups) == ["test/train-0-0", "test/train-0-2"]
    assert (sample.infra_failed, sample.dropped_groups) == (4, 1)
    assert sample.engine_rows == {"e0": 2, "e1": 1}  # also the dropped one was work


def test_sampled_groups_bring_their_documents_also_where_nothing_was_found() -> None:
    rows = [
        row(T, 0, 0, dropped=True, documents={"ada": ADA}),
        row(T, 0, 1),
        row(T, 0, 2, documents={"ada": ADA}),
        row(T, 0, 3, documents={}),  # nobody searched: just the rollouts that people want to see
    ]
    sample = runner(rows).sample(phase=T, step=0)
    assert [sample.groups[i].question.id for i in sample.sampled] == ["test/train-0-2", "test/train-0-3"]
    assert sample.documents == {"ada": ADA}


def test_how_much_of_a_step_is_in_can_be_asked_at_any_time() -> None:
    rows = [row(T, 0, 0), row(T, 1, 0, lost=2), row(T, 1, 1), row(T, 0, 1)]
    env_runner = runner(rows, missing=1)  # a third row of step 0 never comes
    assert len(env_runner.sample(phase=T, step=1).groups) == 2
    assert str(env_runner.progress(T, 0)) == "1 of 3 questions are in"
    assert str(env_runner.progress(T, 1)) == "0 of 2 questions are in"  # handed out
    assert env_runner.progress(E, 0).of == 0
    assert str(SampleProgress(0, 0, 0)) == "the stream of questions is being opened"
    assert str(SampleProgress(2, 4, 3)) == "2 of 4 questions are in, in which 3 rollouts lost their search"


def test_a_sample_knows_its_step() -> None:
    rows = [row(T, 0, 0), row(T, 1, 0)]
    sample = runner(rows).sample(phase=T, step=1)
    assert (sample.step, sample.staleness) == (1, [1])


def test_what_the_stream_raises_is_raised_by_the_step_that_waits() -> None:
    env_runner = runner([row(T, 0, 0), row(T, 1, 0)], missing=1, error=RuntimeError("an engine died"))
    assert len(env_runner.sample(phase=T, step=0).groups) == 1
    with pytest.raises(RuntimeError, match="an engine died"):
        env_runner.sample(phase=T, step=1)


def test_a_stream_that_cannot_be_opened_says_why() -> None:
    with pytest.raises(ValueError, match="no such file"):
        of(Stream([], None)).sample(phase=E, step=0)


def test_a_stream_that_ends_early_is_an_error_and_never_a_short_step() -> None:
    with pytest.raises(RuntimeError, match="the rollout stream ended before all of its steps were complete"):
        runner([row(T, 0, 0)], missing=1).sample(phase=T, step=0)


def test_the_first_questions_are_shown_once_they_are_all_in_and_not_those_that_are_done_first() -> None:
    seen: list[tuple[list[str], int]] = []
    env_runner = runner([row(E, 0, index) for index in (4, 3, 1, 2, 0, 5)])

    def look(sample: StepSample) -> None:
        seen.append((names(sample.groups), env_runner.progress(E, 0).done))

    env_runner.sample(phase=E, step=0, first=2, look=look)
    assert seen == [(["test/eval-0-0", "test/eval-0-1"], 5)]


def test_what_looking_raises_ends_the_wait() -> None:
    def stop(_: StepSample) -> None:
        raise ValueError("enough")

    env_runner = runner([row(E, 0, 0)], missing=5)  # the others never come
    with pytest.raises(ValueError, match="enough"):
        env_runner.sample(phase=E, step=0, first=1, look=stop)
