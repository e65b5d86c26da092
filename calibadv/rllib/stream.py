"""The run's one rollout stream, described so that the EnvRunner can open it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from calibadv.checkpoints.folders import Stored
from calibadv.cluster.factories import make_engine, roll_group
from calibadv.cluster.rollout_worker import WorkerSettings
from calibadv.cluster.rows import FinishedRow
from calibadv.cluster.stream import PoolSettings, stream_rollouts
from calibadv.config import Config
from calibadv.methods import Method
from calibadv.rllib.checkpoint_names import placeholder_weights
from calibadv.rllib.schedule import planned, schedule
from calibadv.rollout.protocols import SearchFn
from calibadv.types import Phase, Question


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run goes on that was begun before."""

    version: int  # training steps made
    evaluated: bool  # whether the evaluation of that version, where one is due, is made
    checkpoint: Stored  # of the learners


@dataclass(frozen=True, slots=True)
class RolloutStream:
    """What the stream is made of. Nothing is started by making it."""

    config: Config
    method: Method
    model: Path  # folder
    train: Sequence[Question]
    test: Sequence[Question]
    search_factory: Callable[[], SearchFn]
    coordinator: str  # its name
    start: Start | None = None
    search_counts: Callable[[], Mapping[str, float]] = dict  # metrics of the search since this was last called

    def __deepcopy__(self, _: Any) -> RolloutStream:
        """Itself: RLlib copies its configuration again and again, and nobody changes a stream."""
        return self

    def open(self) -> tuple[dict[tuple[Phase, int], int], Iterator[FinishedRow]]:
        """How many rows each (phase, step) has, and the rows as they are finished: the first one starts the engines."""
        config, model = self.config, str(self.model)
        first, evaluated = (self.start.version, self.start.evaluated) if self.start else (0, False)
        expected = planned(config, len(self.test), start=first, evaluated=evaluated)
        rows = schedule(config, self.train, self.test, start=first, evaluated=evaluated)
        worker = WorkerSettings(
            engine_factory=partial(make_engine, config, model),
            rollout_factory=roll_group(config, self.method, model, self.search_factory),
            coordinator=self.coordinator,
            placeholder_weights=partial(
                placeholder_weights, model, config.model.dtype, config.rollout.engine == "vllm"
            ),
            max_staleness=config.rollout.max_staleness,
            keep_rollouts=config.rollout.on_new_weights == "keep",
            engine_timeout_s=config.rollout.engine_timeout_s,
            colocated=config.rollout.colocated,
        )
        return expected, stream_rollouts(rows, worker, engine_pool(config))


def engine_pool(config: Config) -> PoolSettings:
    """The engines of a run, and how its rows are dealt out to them."""
    questions = config.data.questions_per_step
    # Four tasks an engine and step: small enough to spread evenly, large enough to cost little.
    batch_rows = max(1, questions // (4 * config.rollout.engines))
    return PoolSettings.of(config, batch_rows=batch_rows, rows_per_step=questions)
