"""Asks what is not answered yet: rounds over what the environment failed, each through the engines of the pool."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.config import Config
from calibadv.evaluation.models import EvaluatedModel
from calibadv.evaluation.plan import Plan
from calibadv.evaluation.prediction import Prediction, predict, prediction_writer, read_predictions
from calibadv.rollout.protocols import SearchFn
from calibadv.tracking.run_files import PREDICTIONS
from calibadv.types import Phase, Question

if TYPE_CHECKING:  # Ray and torch: seconds that a wrong command, or one with nothing left to ask, need not wait
    from calibadv.cluster.rollout_worker import WorkerSettings
    from calibadv.cluster.stream import PoolSettings

log = logging.getLogger(__name__)

ROUNDS = 3  # how often at most a question is asked whose search fails; each time the engines start anew
_SAID_EVERY_S = 20.0  # how far a set is
_BATCH_ROWS = 8  # at most: they come out together, and what has not come out is lost in a crash


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of a set that is still to be answered."""

    set_name: str
    question: Question


def waiting_questions(plan: Plan, model: EvaluatedModel) -> list[Ask]:
    """The questions that the model has not answered yet, those that the environment failed among them."""
    asks = []
    for questions in plan.sets:
        found = read_predictions(plan.folder(model, questions) / PREDICTIONS)
        answered = {question_id for question_id, prediction in found.items() if not prediction.infra_failed}
        asks += [Ask(questions.name, question) for question in questions.questions if question.id not in answered]
    return asks


Rollouts = Callable[[Sequence[RolloutRow], "WorkerSettings", "PoolSettings"], Iterator[FinishedRow]]
"""Rolls out every row, in any order."""

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


def ask_all(
    plan: Plan, model: EvaluatedModel, asks: Sequence[Ask], search: Callable[[], Callable[[], SearchFn]], roll: Rollouts
) -> int:
    """How many questions the environment failed for good; every answer is on disk as soon as it is there.

    `search` starts the search and gives what makes its tools: not before the folders are locked, for the same command
    elsewhere would else lose its search to this one.
    """
    with ExitStack() as stack:
        writers = {
            questions.name: stack.enter_context(prediction_writer(plan.folder(model, questions) / PREDICTIONS))
            for questions in plan.sets
            if any(ask.set_name == questions.name for ask in asks)
        }
        search_factory = search()
        progress = _Progress(model.name, Counter(ask.set_name for ask in asks))

        def keep(ask: Ask, prediction: Prediction) -> None:
            writers[ask.set_name](prediction)
            progress.add(ask.set_name)

        return ask_in_rounds(asks, partial(ask_model, model=model, search_factory=search_factory, roll=roll), keep)


def ask_model(
    asks: Sequence[Ask], model: EvaluatedModel, search_factory: Callable[[], SearchFn], roll: Rollouts
) -> Iterator[tuple[Ask, Prediction]]:
    """Asks each question once, greedily: an `AskOnce` of the model. Its engines live as long as the iterator."""
    from calibadv.cluster.factories import make_engine, roll_group
    from calibadv.cluster.rollout_worker import WorkerSettings

    method = model.config.run_method()
    worker = WorkerSettings(
        engine_factory=partial(make_engine, model.config, str(model.folder)),
        rollout_factory=roll_group(model.config, method, str(model.folder), search_factory),
        coordinator=f"evaluation-{model.name}-{uuid.uuid4().hex[:8]}",
        weights="own",
        engine_timeout_s=model.config.rollout.engine_timeout_s,
    )
    for row in roll(rows_of(asks), worker, _pool(model.config, len(asks))):
        ask, group = asks[row.index], row.rolled.group
        yield ask, predict(ask.question, group.trajectories[0] if group else None)


def cluster_rollouts(rows: Sequence[RolloutRow], worker: WorkerSettings, pool: PoolSettings) -> Iterator[FinishedRow]:
    """The `Rollouts` of the Ray Data pool. Also where the reader stops early the engines end."""
    from calibadv.cluster.coordinator import create_coordinator
    from calibadv.cluster.stream import stream_rollouts

    coordinator = create_coordinator(worker.coordinator)  # counts engines that die; nothing is published on it
    with closing(stream_rollouts(rows, worker, pool)) as finished:
        yield from finished
    del coordinator


def rows_of(asks: Sequence[Ask]) -> list[RolloutRow]:
    """A row of the rollout stream a question, in order, all of one step and version: the last batch is a short one."""
    return [RolloutRow(Phase.EVAL, 0, index, ask.question, version=0) for index, ask in enumerate(asks)]


def _pool(config: Config, questions: int) -> PoolSettings:
    from calibadv.cluster.stream import PoolSettings

    engines = config.rollout.engines
    batch_rows = max(1, min(_BATCH_ROWS, questions // (4 * engines)))
    # Twice what the engines hold at a time: while some rollouts wait for documents, others fill their places.
    rows_per_step = min(questions, 2 * engines * config.rollout.max_concurrent)
    return PoolSettings.of(config, batch_rows=batch_rows, rows_per_step=rows_per_step)


class _Progress:
    """Says from time to time how many of a model's questions are answered."""

    def __init__(self, model: str, of: Counter[str]) -> None:
        self._model, self._of = model, of
        self._done: Counter[str] = Counter()
        self._said_s = time.monotonic()

    def add(self, set_name: str) -> None:
        """One more question of the set is answered."""
        self._done[set_name] += 1
        whole = self._done[set_name] == self._of[set_name]
        if whole or time.monotonic() - self._said_s > _SAID_EVERY_S:
            self._said_s = time.monotonic()
            log.info("%s: %s %d/%d", self._model, set_name, self._done[set_name], self._of[set_name])
