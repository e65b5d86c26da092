"""LearnerGroup with checked results: every rank must answer, and an error of any rank is raised in the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.rllib.core.learner.learner_group import LearnerGroup

from calibadv.batching import GroupShard
from calibadv.methods.method import StepFacts


class PolicyLearnerGroup(LearnerGroup):  # type: ignore[misc]
    """RLlib's LearnerGroup, fed one object ref a learner (RLlib's own sharding would cut groups apart)."""

    @property
    def num_shards(self) -> int:
        """Learners that each take one shard of a step: 1 for the local learner."""
        return max(1, int(self.config.num_learners))

    def update_shards(
        self, shards: Sequence[Sequence[GroupShard]], *, num_minibatches: int, facts: StepFacts | None = None
    ) -> list[dict[str, Any]]:
        """Trains one step; the totals of every rank, in rank order."""
        assert len(shards) == self.num_shards
        if self.is_local:
            return list(self.update(episodes=list(shards[0]), num_minibatches=num_minibatches, facts=facts))
        refs = [ray.put(list(shard)) for shard in shards]
        return list(self.update(episodes_refs=refs, num_minibatches=num_minibatches, facts=facts))

    def call_all(self, function: Callable[[Any], Any]) -> list[Any]:
        """`function(learner)` on every rank; raises the first error instead of hiding it in a result object."""
        if self.is_local:
            return [function(self._learner)]
        return list(ray.get([worker.apply.remote(function) for worker in self._workers]))
