"""What CalibAdv's advantages of a step take: 2,560 rollouts, 512 questions of five, CPU seconds.

Rollouts are made up: one to three searches with three documents of 40 each, thinks of random words. Whether a think
repeats an earlier one is asked by the `reference` preset alone, and by its edit distance: that is what long ones cost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.lines import Line, at_most, least_of, run
from calibadv.methods import make_method
from calibadv.types import Group, Question, Trajectory, Turn, TurnKind

QUESTIONS, SAMPLES = 512, 5
SHORT, LONG = 100, 800  # words of a think
WORDS = [f"word{index}" for index in range(2000)]
CASES = (("paper", SHORT, 0.1), ("paper", LONG, 0.1), ("reference", SHORT, 0.5), ("reference", LONG, 0.5))
ROUNDS = 4


def measure() -> list[Line]:
    """A line a preset and length of think."""
    steps = {words: step(words) for words in (SHORT, LONG)}
    seconds = least_of(ROUNDS, [_assigned(preset, steps[words]) for preset, words, _ in CASES])
    rollouts = f"{QUESTIONS * SAMPLES:,}"
    return [
        at_most(
            f"CalibAdv's advantages of {rollouts} rollouts, {preset} preset, thinks of {words} words", spent, goal, " s"
        )
        for (preset, words, goal), spent in zip(CASES, seconds, strict=True)
    ]


def _assigned(preset: str, groups: Sequence[Group]) -> Callable[[], object]:
    method = make_method("calibadv", {"preset": preset})
    return lambda: [method.advantages(group) for group in groups]


def step(words: int, questions: int = QUESTIONS) -> list[Group]:
    """Groups of rollouts whose thinks have so many words. The same for the same arguments."""
    random = np.random.default_rng(0)
    return [
        Group(Question(f"made/{index}", "?", ("a",)), tuple(_rollout(random, words) for _ in range(SAMPLES)))
        for index in range(questions)
    ]


def _rollout(random: np.random.Generator, words: int) -> Trajectory:
    searches = int(random.integers(1, 4))
    turns = [_turn(random, words, searching=index < searches) for index in range(searches + 1)]
    reward = float(random.integers(2))
    return Trajectory(np.arange(100), tuple(turns), "a", reward, 1.0, reward)


def _turn(random: np.random.Generator, words: int, *, searching: bool) -> Turn:
    think = f"<think>{' '.join(random.choice(WORDS, words))}</think>"
    ids = np.arange(words + 20)
    logprobs = np.zeros(len(ids), np.float32)
    if not searching:
        return Turn(TurnKind.ANSWER, ids, logprobs, np.arange(0), f"{think}<answer>a</answer>")
    documents = tuple(f"doc{index}" for index in random.choice(40, 3, replace=False))
    return Turn(TurnKind.SEARCH, ids, logprobs, np.arange(400), f"{think}<search>q</search>", "q", documents)


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
