"""Learners that die: the group ends at once. What becomes of the run: test_resume.py.

Engines that die or hang: test_engine_faults.py; the search: test_search_faults.py.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from calibadv.rllib.learner_group import LearnersLost, PolicyLearnerGroup
from tests.integration.test_learner_group import GROUPS, learner_group, train
from tests.integration.test_learner_group import model_folder as model_folder
from tests.integration.test_training import place as place

pytestmark = pytest.mark.integration

FOREVER_S = 3600


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that have not ended some time from now: Ray's `kill` does not wait."""
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=120)
    return [process.pid for process in left]


def dies_in_the_second_mini_batch(learner: Any) -> int:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    learner._updater.step = die
    return os.getpid()


def is_killed_while_the_other_waits(_: Any) -> None:
    import torch

    if torch.distributed.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(FOREVER_S)


@pytest.mark.usefixtures("local_ray")
def test_a_learner_that_is_killed_ends_the_whole_group_at_once_and_is_named(model_folder: Path) -> None:
    two = learner_group(model_folder, 2)
    pids = two.call_all(lambda _: os.getpid())
    assert two.lost() is None
    with pytest.raises(LearnersLost, match=r"learner 1 was lost \(ActorDiedError: .*; the other one is ended with it"):
        two.call_all(is_killed_while_the_other_waits)
    assert alive(pids) == []
    check_gone(two, "learner 1 was lost")

    one = learner_group(model_folder, 1)
    pids = one.call_all(dies_in_the_second_mini_batch)
    with pytest.raises(LearnersLost, match=r"learner 0 was lost \(ActorDiedError: "):
        train(one, GROUPS)
    assert alive(pids) == []
    check_gone(one, "learner 0 was lost")


def check_gone(learners: PolicyLearnerGroup, words: str) -> None:
    """Whoever asks again is told the same at once, and it can be put away."""
    assert words in str(learners.lost())
    with pytest.raises(LearnersLost, match=words):
        learners.call_all(lambda _: None)
    with pytest.raises(LearnersLost, match=words):
        train(learners, GROUPS)
    learners.shutdown()
