"""Two learner processes write a checkpoint together, and two new ones go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calibadv.checkpoints.manifest import Manifest
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.rllib.learner_group import PolicyLearnerGroup
from calibadv.rllib.learner_state import CheckpointFailed, load_learners, save_learners
from tests.integration.test_learner_group import GROUPS, learner_group, train, weights
from tests.integration.test_learner_group import model_folder as model_folder

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def drawn(_: Any) -> float:
    return float(torch.rand(()))


def test_both_ranks_go_on_bit_for_bit_and_one_that_cannot_is_named(model_folder: Path, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "checkpoints"))
    storage.prepare()
    first = learner_group(model_folder, 2)
    try:
        train(first, GROUPS)
        draft = storage.draft(Kind.CHECKPOINT, 1)
        files = save_learners(first, draft, model=True)
        stored = draft.commit(Manifest(1, 2, files))
        assert {file.partition("/")[0] for file in files} == {"shared", "rank-0", "rank-1", "model"}
        random = first.call_all(drawn)
        train(first, GROUPS)
        expected = weights(first)

        lost = storage.draft(Kind.CHECKPOINT, 2)
        (lost.path / "rank-1").write_text("in the way of the second learner")
        with pytest.raises(CheckpointFailed, match=r"^learner 1 could not write its part \(FileExistsError"):
            save_learners(first, lost, model=False)
        assert len(train(first, GROUPS)) == 2  # and both still train
    finally:
        first.shutdown()
    second = learner_group(model_folder, 2)
    try:
        go_on(second, stored, random, expected)
        (tmp_path / "checkpoints" / stored.name / "rank-1" / "state.json").write_text("{}")
        with pytest.raises(ValueError, match=r"^learner 1 could not load .*step-000001 \(Damaged: .*rank-1/state.json"):
            load_learners(second, stored)
    finally:
        second.shutdown()


def go_on(
    learners: PolicyLearnerGroup, stored: Any, random: list[float], expected: list[dict[str, torch.Tensor]]
) -> None:
    load_learners(learners, stored)
    assert learners.call_all(drawn) == random
    train(learners, GROUPS)
    for rank, other in zip(weights(learners), expected, strict=True):
        assert [name for name in other if not torch.equal(rank[name], other[name])] == []
