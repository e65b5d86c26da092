"""Learners that die: the group ends at once, and the run starts again by itself and becomes the run that it would be.

Engines that die or hang: test_engine_faults.py; the search: test_search_faults.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from calibadv.rllib.learner_group import LearnersLost, PolicyLearnerGroup
from tests.integration.commands import ended, start
from tests.integration.test_learner_group import GROUPS, learner_group, train
from tests.integration.test_learner_group import model_folder as model_folder
from tests.integration.test_resume import assert_same_run
from tests.integration.test_training import Place, lines
from tests.integration.test_training import place as place

pytestmark = pytest.mark.integration

FOREVER_S = 3600
# `train.py` with a learner that is killed, once in all, in the middle of the fourth step: of its second mini-batch.
DIES = """
import os, signal, sys
from pathlib import Path
import calibadv.rllib.config
from calibadv.rllib.learner import PolicyLearner
from workflows.train import _cli

KILLED = Path(sys.argv.pop(1))

class Dies(PolicyLearner):
    def _update_minibatch(self, *arguments, **options):
        if self._updates_done == 7 and not KILLED.exists():
            KILLED.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super()._update_minibatch(*arguments, **options)

calibadv.rllib.config.PolicyLearner = Dies
sys.exit(_cli())
"""


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that have not ended half a minute from now: Ray's `kill` does not wait."""
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
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


def test_a_run_whose_learner_is_killed_in_an_update_is_the_run_that_was_never_hurt(
    place: Place, tmp_path: Path
) -> None:
    options = {"run__steps": "4", "data__test_questions": "4", "learner__learners": "1", "checkpoint__every": "2"}
    code, output = place.run("straight", **options)
    assert code == 0, output
    code, output = run_with_a_death(place, "hurt", tmp_path, **options)
    assert code == 0, output
    assert "learner 0 was lost" in output
    assert "the run starts again by itself, restart 1 of 3" in output
    assert "made again: step 3 and what of a step was under way, from the checkpoint of step 2" in output
    (restart,) = lines(place.runs / "hurt" / "restarts.jsonl")
    assert "learner 0 was lost" in restart["why"]
    summary = place.runs / "hurt" / "summary.json"
    values = json.loads(summary.read_text())
    assert values["restarts"] == 1
    summary.write_text(json.dumps(values | {"restarts": 0}))
    assert_same_run(place.runs / "hurt", place.runs / "straight", steps=4)


def run_with_a_death(place: Place, name: str, folder: Path, **more: str) -> tuple[int, str]:
    script = folder / "dies.py"
    script.write_text(DIES, encoding="utf-8")
    arguments = place.arguments(name, **more)
    return ended(start(script, str(folder / "killed"), *arguments, cwd=place.runs.parent, ray=place.ray))
