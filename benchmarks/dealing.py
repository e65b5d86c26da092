"""How much more the busiest learner has than the mean: a step's rollouts dealt to 8, 32 and 64 learners.

The paper's step: 512 questions of five rollouts, mini-batches of 256 rollouts, log-normal lengths of which the standard
deviation is half of the mean. All learners wait for the busiest in every mini-batch: the ratio is the mean over those.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.lines import Line, at_most, run
from calibadv.dealing import Tokens, busiest, deal_rollouts
from calibadv.types import IntArray

QUESTIONS, SAMPLES, MINIBATCHES = 512, 5, 10
MEAN_TOKENS, DEVIATION = 4000, 0.5
GOALS = {8: 1.01, 32: 1.03, 64: 1.05}
SEEDS = 5


def measure() -> list[Line]:
    """A line a number of learners, the mean over several steps."""
    steps = [step(seed) for seed in range(SEEDS)]
    return [
        at_most(
            f"tokens of the busiest of {learners} learners / mean",
            float(np.mean([dealt(*step, learners) for step in steps])),
            goal,
        )
        for learners, goal in GOALS.items()
    ]


def step(seed: int) -> tuple[Tokens, IntArray]:
    """Tokens [R, M] of each rollout in each mini-batch, and its group [R]."""
    random = np.random.default_rng(seed)
    minibatch_R = random.permutation(QUESTIONS * SAMPLES) * MINIBATCHES // (QUESTIONS * SAMPLES)
    tokens_RM = np.zeros((QUESTIONS * SAMPLES, MINIBATCHES))
    tokens_RM[np.arange(len(tokens_RM)), minibatch_R] = lengths(random)
    return tokens_RM, np.arange(len(tokens_RM)) // SAMPLES


def lengths(random: np.random.Generator) -> NDArray[np.float64]:
    """Tokens of each rollout of a step, question by question."""
    sigma = np.sqrt(np.log1p(DEVIATION**2))
    return MEAN_TOKENS * random.lognormal(-(sigma**2) / 2, sigma, QUESTIONS * SAMPLES)


def dealt(tokens_RM: Tokens, group_R: IntArray, learners: int) -> float:
    """The busiest over the mean."""
    return busiest(tokens_RM, deal_rollouts(tokens_RM, group_R, learners), learners)


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
