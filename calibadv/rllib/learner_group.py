"""LearnerGroup with checked results: every rank must answer, and an error of any rank is raised in the driver.

RLlib's own group goes on without a learner that has died, and waits for those that wait for it in a collective: half an
hour with gloo. Here a lost learner is the group's end, within seconds: the others hold no state to go on from alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import NodeDiedError, RayActorError, RayError, WorkerCrashedError
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.training_data import TrainingData
from torch.distributed import DistError

from calibadv.batching import GroupShard
from calibadv.methods.method import StepFacts
from calibadv.rllib.lost import LearnersLost

OTHERS_S = 30.0  # after one rank's error, for the others to end too; those that do not wait for it in a collective
PING_S = 5.0
_DEATHS = (RayActorError, WorkerCrashedError, NodeDiedError)


class PolicyLearnerGroup(LearnerGroup):  # type: ignore[misc]
    """RLlib's LearnerGroup, fed one object ref a learner (RLlib's own sharding would cut groups apart)."""

    _gone: Exception | None = None  # what the group ended of

    @property
    def num_shards(self) -> int:
        """Learners that each take one shard of a step: 1 for the local learner."""
        return max(1, int(self.config.num_learners))

    def update_shards(
        self, shards: Sequence[Sequence[GroupShard]], *, num_minibatches: int, facts: StepFacts | None = None
    ) -> list[dict[str, Any]]:
        """Trains one step; the totals of every rank, in rank order. Raises as `call_all` does."""
        assert len(shards) == self.num_shards
        if self.is_local:
            return list(self.update(episodes=list(shards[0]), num_minibatches=num_minibatches, facts=facts))
        refs = [ray.put(list(shard)) for shard in shards]
        return self._answers(
            [
                worker.apply.remote(_update, ref, num_minibatches, facts)
                for worker, ref in zip(self._workers, refs, strict=True)
            ]
        )

    def call_all(self, function: Callable[[Any], Any]) -> list[Any]:
        """`function(learner)` on every rank, the answers in rank order; raises the first error of any rank.

        `LearnersLost` as soon as a learner's process is gone: the others are ended, not waited for. So are those that
        have no end of their own within `OTHERS_S` of another one's error, which is raised as it is.
        """
        if self.is_local:
            return [function(self._learner)]
        return self._answers([worker.apply.remote(function) for worker in self._workers])

    def lost(self) -> LearnersLost | None:
        """Whether a learner has died: whatever failed meanwhile failed of that. A busy one counts as alive.

        None where the group ended itself, of an error of a learner.
        """
        if self.is_local or self._gone is not None:
            return self._gone if isinstance(self._gone, LearnersLost) else None
        pings = [worker.apply.remote(_nothing) for worker in self._workers]
        done, _ = ray.wait(pings, num_returns=len(pings), timeout=PING_S)
        for rank, ping in enumerate(pings):
            if ping in done and isinstance(error := _error(ping), _DEATHS):
                return self._end(rank, error)
        return None

    @property
    def gone(self) -> bool:
        """Whether the group has ended: it answers nothing any more."""
        return self.lost() is not None or self._gone is not None

    def _answers(self, refs: list[Any]) -> list[Any]:
        if self._gone is not None:
            raise self._gone
        failed: dict[int, Exception] = {}
        waiting, until = list(refs), None
        while waiting:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            done, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
            if not done:
                break
            for ref in done:
                if (error := _error(ref)) is not None:
                    rank = refs.index(ref)
                    if isinstance(error, _DEATHS):
                        raise self._end(rank, error) from error
                    failed[rank] = error
                    until = until or time.monotonic() + OTHERS_S
        if not failed:
            return list(ray.get(refs))
        first = min(failed)
        if isinstance(failed[first], DistError):  # NCCL's and the store's; nothing else breaks a collective
            raise self._end(first, failed[first]) from failed[first]
        if waiting:
            self._gone = failed[first]
            self._kill()
        raise failed[first]

    def _end(self, rank: int, error: Exception) -> LearnersLost:
        self._kill()
        others = self.num_shards - 1
        ended = f"; the {'other one is' if others == 1 else f'other {others} are'} ended with it" if others else ""
        self._gone = lost = LearnersLost(f"learner {rank} was lost ({_cause(error)}){ended}")
        return lost

    def _kill(self) -> None:
        for worker in self._workers:
            ray.kill(worker)


def _update(learner: Any, shards: list[GroupShard], num_minibatches: int, facts: StepFacts | None) -> Any:
    return learner.update(TrainingData(episodes=shards), num_minibatches=num_minibatches, facts=facts)


def _nothing(_: Any) -> None:
    """A sign of life."""


def _error(ref: Any) -> Exception | None:
    try:
        ray.get(ref)
    except (RayError, DistError) as error:
        return error
    return None


def _cause(error: Exception) -> str:
    """Ray's words without its list of ids and of all that may have been the reason."""
    said = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    text = " ".join(said[1:] or said)
    for guesses in (" Some common causes", " There are some potential root causes"):
        text = text.partition(guesses)[0]
    return f"{type(error).__name__}: {text[:300]}"
