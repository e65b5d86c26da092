"""Passes, what is sent, mini-batches that are uneven, by hand and against the real draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from calibadv.batching import shard_groups
from calibadv.step_time.layout import Learners
from calibadv.step_time.learning import (
    forward_flops,
    learning_phase,
    micro_batches,
    sent_bytes,
    slowest_share,
    training_flops,
)
from tests.build import QUESTION, group, trajectory
from tests.step_time.build import IDEAL, TINY, UNIT, WORK

ONE = Learners(1, zero=0, updates=1)
# 160 tokens with 20 before each in the mean; 40 of them reach the head.
LAYERS, HEAD = 160 * (1840 + 32 * 20), 40 * 80


def test_operations_of_learning_by_hand() -> None:
    assert forward_flops(TINY, WORK) == LAYERS + HEAD == 400_000
    assert training_flops(TINY, WORK, ONE) == 4 * LAYERS + 4 * HEAD
    assert training_flops(TINY, WORK, replace(ONE, checkpointing=False)) == 3 * LAYERS + 4 * HEAD
    assert training_flops(TINY, WORK, replace(ONE, models=2)) == 8 * LAYERS + 8 * HEAD


def test_frozen_weights_have_no_gradient() -> None:
    adapters = replace(ONE, adapters=True)
    assert training_flops(TINY, WORK, adapters) == 3 * LAYERS + 3 * HEAD
    assert learning_phase(TINY, UNIT, WORK, adapters, IDEAL).parts["AdamW"] == 0


def test_one_learner_by_hand() -> None:
    phase = learning_phase(TINY, UNIT, WORK, replace(ONE, forwards=2, updates=2), IDEAL)
    assert phase.parts["training passes"] == pytest.approx(1_600_000 / 1e12)
    assert phase.parts["further forward passes"] == pytest.approx(800_000 / 1e12)
    assert phase.parts["waiting for the slowest learner"] == phase.parts["gradients and weights sent"] == 0
    assert phase.parts["AdamW"] == pytest.approx(2 * 28 * 1000 / 1e12)
    assert phase.bound == "arithmetic"


def test_fp32_learners_multiply_without_tensor_cores() -> None:
    fast, slow = (learning_phase(TINY, UNIT, WORK, replace(ONE, dtype=kind), IDEAL) for kind in ("bfloat16", "float32"))
    assert slow.parts["training passes"] == pytest.approx(2 * fast.parts["training passes"])


@pytest.mark.parametrize(
    ("zero", "forwards", "adapters", "copies"),
    [
        (0, 0, False, 2),
        (1, 0, False, 3),
        (2, 0, False, 7),
        (3, 0, False, 9),
        (3, 1, False, 12),
        (2, 0, True, 0),
        (3, 0, True, 6),
    ],
)
def test_bytes_sent_by_stage(zero: Any, forwards: int, adapters: bool, copies: int) -> None:
    learners = Learners(4, zero=zero, forwards=forwards, adapters=adapters)
    assert sent_bytes(TINY, learners, 3) == copies * 4 * 1000 * 3 / 4  # three micro-batches


def test_one_learner_sends_nothing() -> None:
    assert sent_bytes(TINY, ONE, 3) == 0


def test_micro_batches_are_those_of_the_slowest() -> None:
    assert micro_batches(WORK, replace(ONE, token_budget=160)) == 1
    assert micro_batches(WORK, replace(ONE, token_budget=159)) == 2
    # 40 tokens each in the mean, and the slower of two has more.
    assert micro_batches(WORK, replace(ONE, number=2, updates=2, token_budget=40)) == 2


@pytest.mark.parametrize("learners", [2, 8])
def test_the_slowest_learners_share_is_that_of_the_real_draw(learners: int) -> None:
    updates = 4
    groups = [
        group(*(trajectory(0.0, [1]) for _ in range(5)), question=replace(QUESTION, id=f"test/{index}"))
        for index in range(64)
    ]
    even = 64 * 5 / (learners * updates)
    largest = []
    for seed in range(40):
        shards = shard_groups(groups, num_minibatches=updates, num_shards=learners, seed=seed)
        counts = [Counter(index for item in shard for index in item.minibatch_G) for shard in shards]
        largest += [max(count[update] for count in counts) / even for update in range(updates)]
    assert slowest_share(learners, 64 * 5, updates) == pytest.approx(fmean(largest), rel=0.04)


def test_one_learner_waits_for_nobody() -> None:
    assert slowest_share(1, 2560, 10) == 1
    assert slowest_share(64, 2560, 10) > slowest_share(8, 2560, 10) > 1
