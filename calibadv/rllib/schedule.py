"""The whole run as one stream of rows: evaluations and training steps in the order in which engines take them.

A row is one question. An evaluation names the policy `version` that must answer it; a training step s leaves that to
the rollout worker, which waits for version s, or for up to `max_staleness` earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibadv.cluster.rows import RolloutRow
from calibadv.config import Config
from calibadv.data.order import Order, epoch_order, places
from calibadv.types import Phase, Question


def evaluation_versions(config: Config) -> list[int]:
    """Policy versions that are evaluated: before training, every `evaluation.every` steps, and after training."""
    every = config.evaluation.every
    between = range(every, config.run.steps, every) if every else ()
    return [0, *between, config.run.steps]


def planned(config: Config, test: int, *, start: int = 0, evaluated: bool = False) -> dict[tuple[Phase, int], int]:
    """How many rows each (phase, step) has that is left to do, in the order in which engines take them.

    `test`: how many test questions there are: all are asked before and after training, the first
    `evaluation.questions` in between. A run that goes on begins after `start` steps, with the evaluation of that
    version unless it is `evaluated`.

    An evaluation comes before its version's training step, which makes the next one. Where that step may be sampled by
    an older version it goes first: the evaluation would hold the engines' places while its version is learned. Not at
    the run's beginning, where nothing is learned and the evaluation is looked at.
    """
    evaluations, steps = set(evaluation_versions(config)), config.run.steps
    rows: dict[tuple[Phase, int], int] = {}
    for step in range(start, steps + 1):
        due: dict[tuple[Phase, int], int] = {}
        if step in evaluations and not (step == start and evaluated):
            due[Phase.EVAL, step] = test if step in (0, steps) else min(test, config.evaluation.questions)
        if step < steps:
            due[Phase.TRAIN, step] = config.data.questions_per_step
        ahead = step > 0 and config.rollout.max_staleness > 0
        rows |= dict(reversed(due.items())) if ahead else due
    return rows


def schedule(
    config: Config,
    train: Sequence[Question],
    test: Sequence[Question],
    *,
    start: int = 0,
    evaluated: bool = False,
    order: Order = epoch_order,
) -> Iterator[RolloutRow]:
    """The rows that are `planned`, each made when it is asked for.

    The rows that are left to a run that goes on are those of the whole run: no row depends on where it begins.
    """
    per_step, spares = config.data.questions_per_step, config.method.spare_questions
    steps = places(train, per_step, config.run.seed, spares=spares, start=start, order=order)
    for (phase, step), count in planned(config, len(test), start=start, evaluated=evaluated).items():
        if phase is Phase.EVAL:
            for index, question in enumerate(test[:count]):
                yield RolloutRow(phase, step, index, question, version=step)
        else:
            sampled = config.tracking.sampled_rollouts if is_sampled_step(config, step) else 0
            for index, (question, *others) in enumerate(next(steps)):
                yield RolloutRow(phase, step, index, question, sampled=index < sampled, spares=tuple(others))


def is_sampled_step(config: Config, step: int) -> bool:
    """Whether rollouts of this step are written out for people."""
    return step % config.tracking.sample_every == 0 or step == config.run.steps - 1
