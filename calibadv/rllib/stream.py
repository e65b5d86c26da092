"""The run's one rollout stream, described so that the EnvRunner can open it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from calibadv.checkpoints.folders import Stored
from calibadv.cluster.factories import RollGroup, make_engine
from calibadv.cluster.rollout_worker import WorkerSettings
from calibadv.cluster.rows import FinishedRow
from calibadv.cluster.stream import PoolSettings, stream_rollouts
from calibadv.config import Config, role
from calibadv.data.gold_passages import training_questions, without_gold_texts
from calibadv.data.questions import load_questions, scored_by
from calibadv.methods import make_method
from calibadv.rllib.checkpoint_names import placeholder_weights
from calibadv.rllib.schedule import planned, schedule
from calibadv.rollout.protocols import SearchFn
from calibadv.types import Phase


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run goes on that was begun before."""

    version: int  # training steps made
    evaluated: bool  # whether the evaluation of that version, where one is due, is made
    checkpoint: Stored  # of the learners


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made from: its files, all local, and the checkpoint that it goes on from, if it does."""

    train: Path
    test: Path
    corpus: Path
    model: Path
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class RolloutStream:
    """How to open the stream: small, picklable, and nothing is started by making it."""

    config: Config
    inputs: Inputs
    coordinator: str  # its name
    search_factory: Callable[[], SearchFn]

    def __deepcopy__(self, _: Any) -> RolloutStream:
        """Itself: RLlib copies its configuration again and again, and nobody changes a stream."""
        return self

    def open(self) -> tuple[dict[tuple[Phase, int], int], Iterator[FinishedRow]]:
        """How many rows each (phase, step) has, and the rows as they are finished: the first one starts the engines."""
        config = self.config
        method = make_method(config.method.name, config.method.params)
        train = training_questions(self.inputs.train, self.inputs.corpus, method.gold)
        train = scored_by(config.reward.tokens, train)
        test = load_questions(self.inputs.test, tokens=config.reward.tokens)[: config.data.test_questions]
        test = without_gold_texts(test)
        first, evaluated = (start.version, start.evaluated) if (start := self.inputs.start) else (0, False)
        expected = planned(config, len(test), start=first, evaluated=evaluated)
        rows = schedule(config, train, test, start=first, evaluated=evaluated)
        worker = WorkerSettings(
            engine_factory=partial(make_engine, config, str(self.inputs.model)),
            rollout_factory=partial(RollGroup, config, method, str(self.inputs.model), self.search_factory),
            coordinator=self.coordinator,
            placeholder_weights=partial(
                placeholder_weights, str(self.inputs.model), config.model.dtype, config.rollout.engine == "vllm"
            ),
            max_staleness=config.rollout.max_staleness,
            engine_timeout_s=config.rollout.engine_timeout_s,
            colocated=config.rollout.placement == "colocated",
        )
        return expected, stream_rollouts(rows, worker, self._pool())

    def _pool(self) -> PoolSettings:
        config, questions = self.config, self.config.data.questions_per_step
        return PoolSettings(
            engines=config.rollout.engines,
            # Four tasks an engine and step: small enough to spread evenly, large enough to cost little.
            batch_rows=max(1, questions // (4 * config.rollout.engines)),
            rows_per_step=questions,
            num_cpus=config.cluster.cpus_per_engine,
            num_gpus=config.cluster.gpus_per_engine * config.rollout.tensor_parallel,
            resources=role(config.cluster.engines_on),
            env_vars={"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
