"""Asks questions: rounds over what the environment failed, and one round through the engines of the Ray Data pool."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from calibadv.cluster.rows import RolloutRow
from calibadv.config import Config, role
from calibadv.evaluation.models import EvaluatedModel
from calibadv.evaluation.prediction import Prediction, predict
from calibadv.methods import make_method
from calibadv.rollout.protocols import SearchFn
from calibadv.types import Phase, Question

log = logging.getLogger(__name__)

ROUNDS = 3  # how often at most a question is asked whose search fails; each time the engines start anew
_BATCH_ROWS = 8  # at most: they come out together, and what has not come out is lost in a crash


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of a set that is still to be answered."""

    set_name: str
    question: Question


AskOnce = Callable[[Sequence[Ask]], Iterator[tuple[Ask, Prediction]]]
"""Asks each question once, in any order; a prediction may be `infra_failed`."""


def ask_in_rounds(asks: Sequence[Ask], ask_once: AskOnce, keep: Callable[[Ask, Prediction], None]) -> int:
    """How many questions the environment failed in every round. `keep` is called once for each, as it is answered.

    A question that failed is asked again, up to `ROUNDS` times in all, and only then kept as `infra_failed`.
    """
    waiting = list(asks)
    for last in [False] * (ROUNDS - 1) + [True]:
        failed = []
        for ask, prediction in ask_once(waiting):
            if prediction.infra_failed:
                failed.append(ask)
            if last or not prediction.infra_failed:
                keep(ask, prediction)
        waiting = failed
        if not waiting:
            return 0
        log.warning("the search failed for %d questions%s", len(waiting), "" if last else ", which are asked again")
    return len(waiting)


def ask_model(
    asks: Sequence[Ask], model: EvaluatedModel, search_factory: Callable[[], SearchFn]
) -> Iterator[tuple[Ask, Prediction]]:
    """Asks each question once, greedily: an `AskOnce` of the model. Its engines live as long as the iterator."""
    # Ray and torch: seconds that a wrong command, or one with nothing left to ask, need not wait.
    from calibadv.cluster.coordinator import create_coordinator
    from calibadv.cluster.factories import RollGroup, make_engine
    from calibadv.cluster.rollout_worker import WorkerSettings
    from calibadv.cluster.stream import stream_rollouts

    method = make_method(model.config.method.name, model.config.method.params)
    name = f"evaluation-{model.name}-{uuid.uuid4().hex[:8]}"
    coordinator = create_coordinator(name)  # counts engines that die; nothing is published on it
    worker = WorkerSettings(
        engine_factory=partial(make_engine, model.config, str(model.folder)),
        rollout_factory=partial(RollGroup, model.config, method, str(model.folder), search_factory),
        coordinator=name,
        weights="own",
        engine_timeout_s=model.config.rollout.engine_timeout_s,
    )
    rows = stream_rollouts(rows_of(asks), worker, _pool(model.config, len(asks)))
    with closing(rows):  # also where the reader stops early: the engines end
        for row in rows:
            ask, group = asks[row.index], row.rolled.group
            yield ask, predict(ask.question, group.trajectories[0] if group else None)
    del coordinator


def rows_of(asks: Sequence[Ask]) -> list[RolloutRow]:
    """A row of the rollout stream a question, in order, all of one step and version: the last batch is a short one."""
    return [RolloutRow(Phase.EVAL, 0, index, ask.question, version=0) for index, ask in enumerate(asks)]


def _pool(config: Config, questions: int) -> Any:
    from calibadv.cluster.stream import PoolSettings

    engines = config.rollout.engines
    return PoolSettings(
        engines=engines,
        batch_rows=max(1, min(_BATCH_ROWS, questions // (4 * engines))),
        # Twice what the engines hold at a time: while some rollouts wait for documents, others fill their places.
        rows_per_step=min(questions, 2 * engines * config.rollout.max_concurrent),
        num_cpus=config.cluster.cpus_per_engine,
        num_gpus=config.cluster.gpus_per_engine * config.rollout.tensor_parallel,
        resources=role(config.cluster.engines_on),
        env_vars={"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
