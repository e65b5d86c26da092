"""Publishing: the learner's weights go to the policy board, from which every engine pulls them."""

from __future__ import annotations

import ray
import torch

from calibadv.cluster.board import find_board
from calibadv.rllib.learner_group import PolicyLearnerGroup


def publish_weights(learners: PolicyLearnerGroup, board: str, version: int, dtype: torch.dtype) -> None:
    """Puts the weights in the object store as `dtype` and announces `version`.

    Rank 0 owns the chunks, so that they live as long as the learner; the driver only passes references on.
    """
    packed = learners.call_all(lambda learner: learner.pack_weights(dtype))[0]
    ray.get(find_board(board).publish.remote(version, packed))
