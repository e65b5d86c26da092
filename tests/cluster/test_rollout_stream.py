"""Workers and their stream on a real local Ray, with engines that only pretend."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.coordinator import create_coordinator
from calibadv.cluster.ray_place import EnginesDidNotStart
from calibadv.cluster.rollout_worker import WorkerSettings
from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.cluster.stream import PoolSettings, step_blocks, stream_rollouts
from tests.cluster.fake_engine import FakeEngine, rollouts, row

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]
STEPS, ROWS = 10, 8


def train_rows(steps: int = STEPS, rows: int = ROWS) -> list[RolloutRow]:
    return [row(s, i) for s in range(steps) for i in range(rows)]


def publish(coordinator: Any, version: int) -> None:
    ray.get(coordinator.publish.remote(version, chunk_state([("weight", torch.tensor([float(version)]))])))


@pytest.fixture
def coordinator(request: pytest.FixtureRequest) -> Iterator[Any]:
    handle = create_coordinator(request.node.name)
    publish(handle, 0)
    yield handle
    ray.kill(handle)


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Callable[..., WorkerSettings]:
    return partial(WorkerSettings, engine_factory=FakeEngine, rollout_factory=rollouts, coordinator=request.node.name)


def run(coordinator: Any, settings: WorkerSettings, rows: list[RolloutRow], pool: PoolSettings) -> list[FinishedRow]:
    """Consume the stream as a trainer does: publish version s + 1 when every row of step s is there."""
    left = Counter(row.step for row in rows)
    got = []
    for finished in stream_rollouts(rows, settings, pool):
        got.append(finished)
        left[finished.step] -= 1
        if left[finished.step] == 0:
            publish(coordinator, finished.step + 1)
    return got


POOL = PoolSettings(engines=2, rows_per_step=ROWS, num_cpus=0.5)
ONE = replace(POOL, engines=1)  # where it does not matter how many there are: each is a process


def test_rows_run_under_their_versions_a_step_spreads_evenly_and_closing_ends_the_engines(
    coordinator: Any, worker: Any, tmp_path: Path
) -> None:
    """One stream, in which rows of step 2 ask for the version after theirs, and which is closed before its end.

    A step's rows end together, so that each engine holds as many of them as it may: which is the quicker does not
    matter.
    """
    evals = [row(2, 100 + i, version=3) for i in range(4)]
    train = train_rows(STEPS + 1)
    left = Counter(r.step for r in train)
    settings = worker(rollout_factory=partial(rollouts, together=(tmp_path, ROWS)))
    stream = stream_rollouts([*train[: 3 * ROWS], *evals, *train[3 * ROWS :]], settings, POOL)
    got = []
    for finished in stream:
        got.append(finished)
        if finished.index < 100:
            left[finished.step] -= 1
            if left[finished.step] == 0:
                publish(coordinator, finished.step + 1)
        if len(got) == STEPS * ROWS + len(evals):
            break  # a step's rows are still to come
    expected = [(r.step, r.index) for r in (*train_rows(), *evals)]
    assert sorted((r.step, r.index) for r in got) == sorted(expected)
    engines: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for r in got:
        version = r.step if r.index < 100 else 3
        assert r.rolled == {"weights": [version] * 3, "version": version, "text": f"{r.step}/{r.index}?"}
        assert r.started_s <= r.finished_s
        if r.index < 100:
            engines[r.step][r.engine] += 1
    for step, share in engines.items():
        assert sorted(share.values()) == [ROWS // 2, ROWS // 2], f"step {step}: {share}"
    serving = ray.get(coordinator.engines.remote()).serving
    assert serving.keys() == engines[STEPS - 1].keys()
    assert set(serving.values()) <= {STEPS - 1, STEPS}
    stream.close()
    deadline = time.time() + 300
    while time.time() < deadline and ray.available_resources().get("CPU", 0) < 4:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 4


def test_rows_of_a_batch_come_out_together_and_steps_never_share_one(coordinator: Any, worker: Any) -> None:
    rows = train_rows(3, 5)
    assert [t.num_rows for t in step_blocks(rows, 2)] == [2, 2, 1] * 3
    got = run(coordinator, worker(), rows, replace(ONE, batch_rows=2, rows_per_step=5))
    assert sorted((r.step, r.index) for r in got) == [(s, i) for s in range(3) for i in range(5)]
    assert all(r.rolled["version"] == r.step for r in got)


def test_rows_of_a_killed_engine_run_again_and_arrive_once(coordinator: Any, worker: Any, tmp_path: Path) -> None:
    settings = worker(rollout_factory=partial(rollouts, tmp_path / "died"))
    got = run(coordinator, settings, train_rows(5), POOL)
    assert (tmp_path / "died").exists()
    assert sorted((r.step, r.index) for r in got) == [(s, i) for s in range(5) for i in range(ROWS)]
    assert all(r.rolled["version"] == r.step and r.rolled["weights"] == [r.step] * 3 for r in got)


def test_staleness_one_rolls_out_the_next_step_while_a_step_is_learned_also_where_one_is_evaluated(
    coordinator: Any, worker: Any
) -> None:
    train = train_rows(6)
    evals = [row(3, 100 + i, version=3) for i in range(ROWS)]  # as many as the engine holds; `schedule` has them here
    got, came = [], Counter[int]()
    evaluated = published = 0
    for finished in stream_rollouts([*train[: 4 * ROWS], *evals, *train[4 * ROWS :]], worker(max_staleness=1), ONE):
        if finished.index >= 100:
            assert (finished.rolled["version"], published) == (3, 3)
            evaluated += 1
        else:
            got.append(finished)
            came[finished.step] += 1
        # Step s is learned until a row of step s + 1 is there: were there none to come, this would never end.
        ready = came[published] == ROWS and came[published + 1]
        if published < 5 and ready and (published != 3 or evaluated == ROWS):
            published += 1
            publish(coordinator, published)
    assert (len(got), evaluated) == (6 * ROWS, ROWS)
    assert all(r.step - 1 <= r.rolled["version"] <= r.step for r in got)
    assert all(len(set(r.rolled["weights"])) == 1 for r in got)  # one version a trajectory
    assert any(r.rolled["version"] == r.step - 1 for r in got)


def test_a_bug_in_the_rollout_reaches_the_driver_with_its_message(coordinator: Any, worker: Any) -> None:
    with pytest.raises(Exception, match="a bug in the rollout"):
        run(coordinator, worker(rollout_factory=partial(rollouts, None, 3)), train_rows(1), ONE)


def test_an_engine_that_keeps_dying_ends_the_run(coordinator: Any, worker: Any) -> None:
    settings = worker(engine_factory=partial(FakeEngine, dies_on=6), max_engine_deaths=0)
    with pytest.raises(Exception, match="engines died in this run; the last one: as asked"):
        run(coordinator, settings, train_rows(1), ONE)


def test_engines_with_their_own_weights_wait_for_no_publication(request: pytest.FixtureRequest) -> None:
    coordinator = create_coordinator(request.node.name)
    worker = WorkerSettings(FakeEngine, rollouts, request.node.name, weights="own")
    rows = [row(0, i, version=0) for i in range(5)]
    got = list(stream_rollouts(rows, worker, replace(ONE, batch_rows=2, rows_per_step=5)))
    assert sorted(finished.index for finished in got) == [0, 1, 2, 3, 4]
    assert {finished.rolled["version"] for finished in got} == {0}
    # The engine's first weight, never replaced.
    assert {weight for finished in got for weight in finished.rolled["weights"]} == {-1}
    assert ray.get(coordinator.engines.remote()).serving == {}


def test_a_pool_that_finds_no_room_in_time_says_what_it_asked_for_and_what_to_do(coordinator: Any, worker: Any) -> None:
    pool = replace(ONE, num_cpus=10_000, resources={"engine": 0.001}, start_timeout_s=0.5)
    with pytest.raises(EnginesDidNotStart, match=r"1 engines \(10000 CPU, 0.001 engine each\).*start_timeout_s 0.5 s"):
        run(coordinator, worker(), train_rows(1), pool)
