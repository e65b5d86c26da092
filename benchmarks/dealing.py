"""How much more the busiest learner has than the mean: whole groups dealt to 8, 32 and 64 learners.

The paper's step: 512 questions of five rollouts, mini-batches of 256 rollouts, log-normal lengths of which the standard
deviation is half of the mean. All learners wait for the busiest in every mini-batch: the ratio is the mean over those.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.lines import Line, at_most, run
from calibadv.dealing import Tokens, deal

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
            float(np.mean([busiest(tokens_GM, learners) for tokens_GM in steps])),
            goal,
        )
        for learners, goal in GOALS.items()
    ]


def step(seed: int) -> Tokens:
    """Tokens of each group in each mini-batch."""
    random = np.random.default_rng(seed)
    minibatch_R = random.permutation(QUESTIONS * SAMPLES) * MINIBATCHES // (QUESTIONS * SAMPLES)
    sigma = np.sqrt(np.log1p(DEVIATION**2))
    lengths_R = MEAN_TOKENS * random.lognormal(-(sigma**2) / 2, sigma, QUESTIONS * SAMPLES)
    tokens_GM = np.zeros((QUESTIONS, MINIBATCHES))
    np.add.at(tokens_GM, (np.arange(QUESTIONS * SAMPLES) // SAMPLES, minibatch_R), lengths_R)
    return tokens_GM


def busiest(tokens_GM: Tokens, learners: int) -> float:
    """The largest load over the mean one, the mean over mini-batches."""
    owner_G = deal(tokens_GM, learners)
    loads_LM = np.stack([tokens_GM[owner_G == learner].sum(axis=0) for learner in range(learners)])
    return float((loads_LM.max(axis=0) / loads_LM.mean(axis=0)).mean())


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
