"""What the collapse sentinel says of a run's metrics so far: limits, and the alarms beyond them. It holds no state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from pydantic import ConfigDict, Field

from calibadv.collapse import LEAST_F1
from calibadv.section import Section, Steps

NO_ADVANTAGE = "advantage/zero_share"  # of a step's groups, those whose advantages are all 0
REWARD, REWARD_STEPS = "reward/mean", 10  # steps of a mean: a single step's few questions are easy or hard by chance
KEPT_REWARD = 0.75  # of the best mean: what a policy to go back to must have, for an alarm comes late
CALM_ENTROPY = 0.5  # nats; our decision: however low the baseline, a rise up to here is an ordinary policy's


class Limits(Section):
    """What no healthy step goes beyond. All numbers are our decisions; `inf` (0 for the floor) turns one off.

    Absolute limits hold from the first step; factors multiply a baseline, the metric's median over the first
    `baseline_steps` steps that keep the absolute ones; `reward_fall` multiplies the best mean so far. ValueError for a
    number that limits nothing or everything.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    high_ppl_ratio: float = Field(0.2, gt=0)
    """Share of rollouts of PPL > 50; 0.00 to 0.07 in the paper's runs that did not collapse. inf = off."""
    ppl_factor: float = Field(1.5, gt=1)
    """Of the policy's PPL: 0.4 nats a token more; healthy runs moved it by less than a tenth. inf = off."""
    entropy_factor: float = Field(1.8, gt=1)
    """Of the policy's entropy, never below 0.5 nats; healthy runs stayed below 1.6. inf = off."""
    entropy_floor: float = Field(0.001, ge=0, lt=math.inf)
    """Nats: below it the policy is dead, its rollouts of a question are all alike and teach nothing. 0 = off."""
    repetition: float = Field(0.4, gt=0)
    """Share of 4-grams that repeat one: healthy runs have 0.1 at most, a loop nears 1. inf = off."""
    neg_pos_ratio: float = Field(5.0, gt=0)
    """Negative over positive advantage: healthy ones are near 1, at most 1.3 for plain GRPO. inf = off."""
    no_advantage_steps: int = Field(3, ge=0, le=10**6)
    """Consecutive steps without a group that has an advantage, from the first on; 0 = off."""
    reward_fall: float = Field(0.3, ge=0, lt=1)
    """Of the best mean reward of ten steps so far, 0.1 at least: a mean below it is a fall. 0 = off."""
    baseline_steps: Steps = 5
    """Steps that set the baseline: no alarm before they are over."""
    patience: Steps = 3
    """Consecutive steps beyond a limit that raise its alarm: a single one can be a bad batch."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A metric that has been beyond its limit, up to the last step, for as many steps as its limit asks."""

    metric: str
    value: float  # in the last step that measured it; of the reward the mean of the last steps
    limit: float
    since_step: int  # the first step of this unbroken run; with `metric` it tells one alarm from another
    text: str  # the same in words


def alarms(history: Sequence[Mapping[str, float]], limits: Limits) -> list[Alarm]:
    """The alarms in force after the last step of `history`; within its first `baseline_steps` steps only idle ones.

    An idle alarm says that for `no_advantage_steps` steps no group had an advantage. That the reward fell needs no
    patience: it is of means already.

    A row a step with "step", as in metrics.jsonl. A step that did not measure a metric neither continues nor breaks
    its run; a value that is not a number is beyond every limit. Rows without a watched metric (evaluations) are no
    steps. After a roll-back, pass the history without the steps that were undone.
    """
    rows = _steps(history)
    raised = _idle(rows, limits.no_advantage_steps)
    if len(rows) <= limits.baseline_steps:
        return raised
    raised += _fallen(rows, limits.reward_fall)
    for bound in _bounds(rows, limits):
        measured = [row for row in rows if bound.metric in row]
        run = 0
        while run < len(measured) and bound.is_crossed_by(measured[-1 - run]):
            run += 1
        if run >= limits.patience:
            value, since = float(measured[-1][bound.metric]), int(measured[-run]["step"])
            raised.append(Alarm(bound.metric, value, bound.limit, since, bound.text(value, run, since)))
    return raised


def _idle(rows: Sequence[Mapping[str, float]], steps: int) -> list[Alarm]:
    """The alarm of a policy that is taught nothing: [] before the last `steps` steps had no advantage at all."""
    measured = [row for row in rows if NO_ADVANTAGE in row]
    run = 0
    while run < len(measured) and measured[-1 - run][NO_ADVANTAGE] >= 1:
        run += 1
    if not 0 < steps <= run:
        return []
    since = int(measured[-run]["step"])
    text = (
        f"no group had an advantage in the last {run} {'step' if run == 1 else 'steps'}, since step {since}: all "
        "rollouts of a question have the same reward, and nothing is learned"
    )
    return [Alarm(NO_ADVANTAGE, 1.0, 1.0, since, text)]


def _fallen(rows: Sequence[Mapping[str, float]], share: float) -> list[Alarm]:
    """The alarm of a mean reward below `share` times the best one before, of `LEAST_F1` at least; 0: none.

    A mean with a value that is no number is below every bound, and sets none.
    """
    measured = [row for row in rows if REWARD in row] if share else []
    if len(measured) < REWARD_STEPS:
        return []
    values = np.array([row[REWARD] for row in measured], dtype=np.float64)
    means_W = np.lib.stride_tricks.sliding_window_view(values, REWARD_STEPS).mean(axis=1)
    best_W = np.fmax.accumulate(means_W)
    held_W = (means_W >= share * best_W) | ~(best_W >= LEAST_F1)  # the first mean is: it is its own best, or none
    run = int(np.argmax(held_W[::-1]))
    if run == 0:
        return []
    value, best, since = float(means_W[-1]), float(best_W[-1]), int(measured[-run]["step"])
    text = (
        f"{REWARD} is {value:.3g} in the mean of the last {REWARD_STEPS} steps: below {share:g} x {best:.3g}, the best "
        f"such mean, since step {since}"
    )
    return [Alarm(REWARD, value, share * best, since, text)]


def healthy(row: Mapping[str, float], history: Sequence[Mapping[str, float]], limits: Limits) -> bool:
    """Whether the step of `row` goes beyond no limit, so that a snapshot of its policy is worth keeping.

    `history` gives the baseline, the steps before `row` the best reward; it may hold `row` or end before it. Without a
    whole baseline only the absolute limits are asked; a metric that `row` lacks is not. Of the best mean reward
    `KEPT_REWARD` must be left, and some group must have an advantage: who goes back wants the policy from before a
    fall, and one that can learn.
    """
    if limits.no_advantage_steps and row.get(NO_ADVANTAGE, 0.0) >= 1:
        return False
    rows = _steps(history)
    if REWARD in row and limits.reward_fall:
        before = [other for other in rows if other["step"] < row["step"]]
        if _fallen([*before, row], max(limits.reward_fall, KEPT_REWARD)):
            return False
    return not any(bound.is_crossed_by(row) for bound in _bounds(rows, limits))


@dataclass(frozen=True, slots=True)
class _Bound:
    """One limit on one metric."""

    metric: str
    limit: float
    floor: bool = False  # beyond is below
    origin: str = ""  # of a limit that the run's own baseline set

    def is_crossed_by(self, row: Mapping[str, float]) -> bool:
        value = row.get(self.metric)
        if value is None:
            return False
        return not (value >= self.limit if self.floor else value <= self.limit)  # a nan is beyond

    def text(self, value: float, steps: int, since: int) -> str:
        side = "below" if self.floor else "above"
        return (
            f"{self.metric} is {value:.4g}: {side} {self.limit:.4g}{self.origin} "
            f"in the last {steps} {'step' if steps == 1 else 'steps'}, since step {since}"
        )


_WATCHED = (
    "rollout/high_ppl_ratio",
    "policy/ppl",
    "policy/entropy",
    "rollout/repetition",
    "advantage/neg_pos_ratio",
    NO_ADVANTAGE,
    REWARD,
)


def _steps(history: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [row for row in history if any(metric in row for metric in _WATCHED)]


def _bounds(rows: Sequence[Mapping[str, float]], limits: Limits) -> list[_Bound]:
    """The absolute limits, and those that a whole baseline sets."""
    absolute = [
        _Bound("rollout/high_ppl_ratio", limits.high_ppl_ratio),
        _Bound("policy/entropy", limits.entropy_floor, floor=True),
        _Bound("rollout/repetition", limits.repetition),
        _Bound("advantage/neg_pos_ratio", limits.neg_pos_ratio),
    ]
    # Steps of a run that starts badly set no standard.
    sound = [row for row in rows if not any(bound.is_crossed_by(row) for bound in absolute)][: limits.baseline_steps]
    if len(sound) < limits.baseline_steps:
        return absolute
    relative = []
    for metric, factor, least in (
        ("policy/ppl", limits.ppl_factor, 0.0),
        ("policy/entropy", limits.entropy_factor, CALM_ENTROPY),
    ):
        measured = [row[metric] for row in sound if metric in row]
        if measured:
            baseline = median(measured)
            origin = f" ({factor:g} x {baseline:.4g}, the median of the first {limits.baseline_steps} healthy steps)"
            limit = factor * baseline
            relative.append(_Bound(metric, limit, origin=origin) if limit >= least else _Bound(metric, least))
    return absolute + relative
