"""The laboratory's tasks: how far a question's chain goes, and how long the demonstrator's failures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

TaskName = Literal["plain", "long-failures"]


@dataclass(frozen=True)
class Task:
    """What sets one world of questions and its demonstrator apart from another's."""

    start: Path  # the policy that its demonstrator's dialogues made; losses in the .json beside it
    hops: Mapping[int, float]  # of a question, and how often
    searches: int  # the demonstrator's most, and an agent's
    turn_tokens: int  # room for a turn of its own
    calm: float  # mean words of a ramble: on the way,
    lost: float  # after a miss,
    guessing: float  # and before a guess
    recited: tuple[int, int] = (0, 0)  # least and most found passages, six words each, that it repeats before a guess


TASKS: Mapping[TaskName, Task] = {
    "plain": Task(
        start=Path(__file__).with_name("start.safetensors"),
        hops={1: 0.15, 2: 0.6, 3: 0.25},
        searches=4,
        turn_tokens=110,
        calm=3.0,
        lost=20.0,
        guessing=60.0,
    ),
    # Answered soon or not at all, and failures that are two to three times as long as successes: GRPO's own negative
    # mass outweighs its positive one, as in search agents.
    "long-failures": Task(
        start=Path(__file__).with_name("start-long-failures.safetensors"),
        hops={1: 0.4, 2: 0.6},
        searches=3,
        turn_tokens=200,
        calm=2.0,
        lost=4.0,
        guessing=0.0,
        recited=(10, 20),
    ),
}
assert set(TASKS) == set(get_args(TaskName))
PLAIN = TASKS["plain"]
