"""The sentinel on a scripted run: what it keeps, what it goes back to, and when it gives up."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from calibadv.checkpoints.storage import Kind, Storage
from calibadv.config import SentinelConfig
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.training.checkpoints import Snapshots
from calibadv.training.sentinel import Collapsed, Sentinel
from tests.training.fake_algorithm import FakeAlgorithm
from tests.training.flaky_store import down, flaky

CALM = {"policy/entropy": 0.2, "policy/ppl": 1.2, "rollout/high_ppl_ratio": 0.0, "rollout/repetition": 0.05}
GARBAGE = {**CALM, "rollout/high_ppl_ratio": 0.9}


class Run(FakeAlgorithm):
    """Steps of which the sentinel sees the metrics."""

    def step(self, sentinel: Sentinel, metrics: dict[str, float]) -> dict[str, float]:
        """Learns, is looked at, publishes."""
        self.weights = self.version + 1
        added = sentinel.inspect(self, dict(metrics))  # type: ignore[arg-type]
        self.version += 1
        return added


def sentinel(folder: Path | str, **settings: Any) -> Sentinel:
    small = {"baseline_steps": 3, "patience": 2, "snapshot_every": 2, "max_rollbacks": 1}
    return Sentinel(SentinelConfig(**{**small, **settings}), Snapshots(Storage(str(folder))))


def begun(folder: Path | str, **settings: Any) -> tuple[Run, Sentinel]:
    run, watch = Run(), sentinel(folder, **settings)
    watch.begin(run)  # type: ignore[arg-type]
    return run, watch


def test_off_looks_at_nothing(tmp_path: Path) -> None:
    run, watch = begun(tmp_path / "s", action="off")
    assert [run.step(watch, GARBAGE) for _ in range(9)] == [{}] * 9
    assert not (tmp_path / "s").exists()


def test_warn_says_an_alarm_once_and_counts_it_every_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, watch = begun(tmp_path / "s", action="warn")
    with caplog.at_level(logging.WARNING):
        counts = [run.step(watch, m)["sentinel/alarms"] for m in [CALM] * 4 + [GARBAGE] * 4]
    assert counts == [0, 0, 0, 0, 0, 1, 1, 1]
    assert len(caplog.records) == 1
    assert "high_ppl_ratio" in caplog.text
    assert not (tmp_path / "s").exists()


def test_stop_ends_the_run_before_the_weights_go_out(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="stop")
    for metrics in [CALM] * 4 + [GARBAGE]:
        run.step(watch, metrics)
    with pytest.raises(Collapsed, match="step 6: rollout/high_ppl_ratio"):
        run.step(watch, GARBAGE)
    assert run.version == 5


def test_roll_back_goes_to_the_last_snapshot_whose_own_rollouts_were_healthy(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="rollback")
    # Snapshots are taken at versions 2, 4 and 6; what version 6 sampled is garbage, what version 4 sampled is not.
    for metrics in [CALM] * 6 + [GARBAGE]:
        run.step(watch, metrics)
    added = run.step(watch, GARBAGE)
    assert run.weights == 4
    assert run.lr_scale == 0.5
    assert added == {"sentinel/alarms": 1.0, "sentinel/rollbacks": 1.0}
    assert [row["step"] for row in watch.history] == [1, 2, 3, 4, 5]  # the fifth step's rollouts are version 4's
    # The undone steps raise no new alarm, and version numbers go on.
    assert run.step(watch, CALM) == {"sentinel/alarms": 0.0, "sentinel/rollbacks": 1.0}
    assert run.version == 9


def test_without_a_later_snapshot_it_goes_back_to_the_start(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="rollback", snapshot_every=100)
    for metrics in [CALM] * 4 + [GARBAGE] * 2:
        run.step(watch, metrics)
    assert run.weights == 0


def test_a_fall_of_the_reward_goes_back_to_before_it_began(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="rollback")
    # Means of ten steps from step 11 on: 0.5, 0.45, 0.4, 0.35, 0.3, ... At step 13 version 12's rollouts are looked at,
    # at step 15 version 14's, with a mean below 0.75 of the best; at step 19 it is 0.1, below 0.3 of it.
    rewards = [0.5] * 11 + [0.0] * 7
    for reward in rewards:
        run.step(watch, {**CALM, "reward/mean": reward})
    assert watch.needed == {12, 18}
    assert run.step(watch, {**CALM, "reward/mean": 0.0})["sentinel/rollbacks"] == 1
    assert run.weights == 12


def test_a_policy_that_nothing_can_be_taught_is_not_gone_back_to(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="rollback")
    learns, idle = {**CALM, "advantage/zero_share": 0.2}, {**CALM, "advantage/zero_share": 1.0}
    # The rollouts of version 4 are looked at in step 5, which has no advantage: what stays good is version 2.
    for metrics in [learns] * 4 + [idle] * 3:
        run.step(watch, metrics)
    assert (run.weights, watch.rollbacks) == (2, 1)
    assert run.step(watch, learns) == {"sentinel/alarms": 0.0, "sentinel/rollbacks": 1.0}


def test_one_roll_back_too_many_ends_the_run(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="rollback")
    for metrics in [CALM] * 6 + [GARBAGE] * 2 + [CALM] * 2 + [GARBAGE]:
        run.step(watch, metrics)
    with pytest.raises(Collapsed, match="after 1 roll-backs"):
        run.step(watch, GARBAGE)


def test_limits_that_limit_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="ppl_factor"):
        SentinelConfig(ppl_factor=0.5)


def snapshots(folder: Path) -> list[int]:
    return Storage(str(folder)).versions(Kind.SNAPSHOT)


def test_only_snapshots_that_it_may_go_back_to_are_kept_and_those_of_checkpoints(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="rollback")
    for metrics in [CALM] * 7:
        run.step(watch, metrics)
    assert watch.needed == {6}  # taken at 6, and seen to be healthy in the step after it
    assert snapshots(tmp_path) == [6]
    watch.snapshots.named[7] = (6,)
    for metrics in [CALM] * 4:
        run.step(watch, metrics)
    assert watch.needed == {10}
    assert snapshots(tmp_path) == [6, 10]


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 7, 8, 9])
def test_a_sentinel_that_goes_on_does_what_the_first_one_would_have(tmp_path: Path, cut: int) -> None:
    script = [CALM] * 6 + [GARBAGE] * 2 + [CALM] * 3
    run, watch = begun(tmp_path / "straight", action="rollback")
    expected = [run.step(watch, metrics) for metrics in script]

    other, first = begun(tmp_path / "resumed", action="rollback")
    added = [other.step(first, metrics) for metrics in script[:cut]]
    second = sentinel(tmp_path / "resumed", action="rollback")
    second.restore(json.loads(json.dumps(first.state())))
    second.begin(other)  # type: ignore[arg-type]
    added += [other.step(second, metrics) for metrics in script[cut:]]
    assert added == expected
    assert (other.weights, other.lr_scale, second.needed) == (run.weights, run.lr_scale, watch.needed)


def test_a_sentinel_that_goes_on_says_no_alarm_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, watch = begun(tmp_path, action="warn")
    for metrics in [CALM] * 4 + [GARBAGE] * 2:
        run.step(watch, metrics)
    assert caplog.text.count("high_ppl_ratio") == 1
    other = sentinel(tmp_path, action="warn")
    other.restore(json.loads(json.dumps(watch.state())))
    assert run.step(other, GARBAGE)["sentinel/alarms"] == 1
    assert caplog.text.count("high_ppl_ratio") == 1


def test_a_run_that_turns_roll_back_on_when_it_goes_on_can_go_back_to_there(tmp_path: Path) -> None:
    run, watch = begun(tmp_path, action="warn")
    for metrics in [CALM] * 5:
        run.step(watch, metrics)
    other = sentinel(tmp_path, action="rollback")
    other.restore(watch.state())
    other.begin(run)  # type: ignore[arg-type]
    assert other.needed == {5}


def test_without_room_for_a_snapshot_the_older_one_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, watch = begun(tmp_path, action="rollback")
    run.disk_full = True
    for metrics in [CALM] * 4:
        run.step(watch, metrics)
    assert watch.needed == {0}
    assert snapshots(tmp_path) == [0]
    assert "No space left on device: the sentinel keeps the snapshot that it has" in caplog.text.replace(")", "")


def test_a_store_that_removes_nothing_for_a_while_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    storage = flaky()
    run, watch = begun(storage.root, action="rollback")
    with down("rm|ls"):
        for metrics in [CALM] * 3:  # the snapshot of 2 is good once the third step was seen
            run.step(watch, metrics)
    assert "could not be removed: 503 Service Unavailable" in caplog.text
    assert storage.versions(Kind.SNAPSHOT) == [0, 2]
    run.step(watch, CALM)
    assert storage.versions(Kind.SNAPSHOT) == [2, 4]


def test_without_room_for_the_first_snapshot_the_run_does_not_begin(tmp_path: Path) -> None:
    run, watch = Run(), sentinel(tmp_path, action="rollback")
    run.disk_full = True
    with pytest.raises(CheckpointFailed, match="snapshot-000000 could not be written"):
        watch.begin(run)  # type: ignore[arg-type]
