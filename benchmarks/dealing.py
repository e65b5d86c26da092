"""How much more the busiest learner has than the mean: a step's rollouts dealt to 8, 32 and 64 learners.

The paper's step: 512 questions of five rollouts, mini-batches of 256 rollouts, log-normal lengths of which the standard
deviation is half of the mean, and of which a group's prompt is computed once a learner. All learners wait for the
busiest in every mini-batch: the ratio is the mean over those. `drawn whole`: `learner.minibatch_draw = "groups"`.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.lines import Line, at_most, run
from calibadv.dealing import Tokens, busiest, computed, deal_rollouts

QUESTIONS, SAMPLES, MINIBATCHES = 512, 5, 10
MEAN_TOKENS, DEVIATION, PROMPT = 4000, 0.5, 200
GOALS = {8: 1.01, 32: 1.03, 64: 1.05}
SEEDS = 5
ALIKE = [np.full((SAMPLES, SAMPLES), float(PROMPT))] * QUESTIONS


def measure() -> list[Line]:
    """A line a number of learners and draw of mini-batches, the mean over several steps."""
    lines = []
    for whole in (False, True):
        steps = [step(seed, whole) for seed in range(SEEDS)]
        for learners, goal in GOALS.items():
            ratio, more = np.mean([dealt(tokens_RM, learners) for tokens_RM in steps], axis=0)
            what = f"tokens that the busiest of {learners} learners computes / mean"
            kept = f" ({more:.1%} more computed than with no group cut)"
            lines.append(at_most(what + ", groups drawn whole" * whole, float(ratio), goal, more=kept))
    return lines


def step(seed: int, whole: bool = False) -> Tokens:
    """Tokens [R, M] of each rollout in each mini-batch."""
    random = np.random.default_rng(seed)
    drawn = random.permutation(QUESTIONS * SAMPLES)
    if whole:
        drawn = np.repeat(SAMPLES * random.permutation(QUESTIONS), SAMPLES) + np.tile(np.arange(SAMPLES), QUESTIONS)
    tokens_RM = np.zeros((QUESTIONS * SAMPLES, MINIBATCHES))
    tokens_RM[np.arange(len(tokens_RM)), drawn * MINIBATCHES // len(drawn)] = lengths(random)
    return tokens_RM


def lengths(random: np.random.Generator) -> NDArray[np.float64]:
    """Tokens of each rollout of a step, question by question."""
    sigma = np.sqrt(np.log1p(DEVIATION**2))
    return MEAN_TOKENS * random.lognormal(-(sigma**2) / 2, sigma, QUESTIONS * SAMPLES)


def dealt(tokens_RM: Tokens, learners: int) -> tuple[float, float]:
    """(the busiest over the mean, by which share more is computed than with all groups whole)."""
    owner_R = deal_rollouts(tokens_RM, ALIKE, learners)
    made_RM = computed(tokens_RM, ALIKE, owner_R)
    whole = computed(tokens_RM, ALIKE, np.arange(len(tokens_RM)) // SAMPLES).sum()
    return busiest(made_RM, owner_R, learners), float(made_RM.sum() / whole - 1)


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
