"""The whole run as one stream of rows: evaluations and training steps in the order in which they happen.

A row is one question. An evaluation names the policy `version` that must answer it; a training step s leaves that to
the stage, which waits for version s, or for up to `max_staleness` earlier.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from calibadv.config import Config
from calibadv.data.order import questions_of_step
from calibadv.types import Question


class Phase(StrEnum):
    TRAIN = "train"
    EVAL = "eval"


def evaluation_versions(config: Config) -> list[int]:
    """Policy versions that are evaluated: before training, every `evaluation.every` steps, and after training."""
    every = config.evaluation.every
    between = range(every, config.run.steps, every) if every else ()
    return [0, *between, config.run.steps]


def evaluation_questions(config: Config, test: Sequence[Question], version: int) -> Sequence[Question]:
    """All test questions before and after training, the first `evaluation.questions` in between."""
    return test if version in (0, config.run.steps) else test[: config.evaluation.questions]


def schedule(
    config: Config, train: Sequence[Question], test: Sequence[Question], *, start: int = 0, evaluated: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of the run: {phase, step, index, sampled, question (pickled)[, version]}.

    A run that goes on begins after `start` steps, with the evaluation of that version unless it is `evaluated`. The
    rows that are left are those of the whole run: no row depends on where it begins.
    """
    evaluations = set(evaluation_versions(config))
    for step in range(start, config.run.steps + 1):
        if step in evaluations and not (step == start and evaluated):
            for row in _rows(Phase.EVAL, step, evaluation_questions(config, test, step), sampled=0):
                yield row | {"version": step}
        if step < config.run.steps:
            questions = questions_of_step(train, step, config.data.questions_per_step, config.run.seed)
            sampled = config.tracking.sampled_rollouts if is_sampled_step(config, step) else 0
            yield from _rows(Phase.TRAIN, step, questions, sampled)


def is_sampled_step(config: Config, step: int) -> bool:
    """Whether rollouts of this step are written out for people."""
    return step % config.tracking.sample_every == 0 or step == config.run.steps - 1


def _rows(phase: Phase, step: int, questions: Sequence[Question], sampled: int) -> Iterator[dict[str, Any]]:
    for index, question in enumerate(questions):
        yield {
            "phase": str(phase),
            "step": step,
            "index": index,
            "sampled": index < sampled,
            "question": pickle.dumps(question),
        }
