"""One streaming execution a run: rows in, rollouts out, engines alive in between."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import pickle
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from calibadv.cluster.coordinator import find_coordinator
from calibadv.cluster.ray_place import EnginesDidNotStart
from calibadv.cluster.rollout_worker import RolloutWorker, WorkerSettings
from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.config import Config, role


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many engines there are, what each of them takes, and how rows are dealt out to them."""

    engines: int = 1
    batch_rows: int = 1  # rows of one task; they come out together
    rows_per_step: int = 8  # bounds what one engine may hold, so that a step spreads evenly
    num_cpus: float = 1.0  # per engine
    num_gpus: float = 0.0  # per engine
    resources: Mapping[str, float] = field(default_factory=dict)  # per engine, custom ones
    env_vars: Mapping[str, str] = field(default_factory=dict)  # of the engines' processes
    start_timeout_s: float = 1800.0  # for the whole pool to be ready

    def __post_init__(self) -> None:
        for name in ("engines", "batch_rows", "rows_per_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @classmethod
    def of(cls, config: Config, *, batch_rows: int, rows_per_step: int) -> PoolSettings:
        """The configuration's engines, for rows that are dealt out so."""
        cluster, rollout = config.cluster, config.rollout
        return cls(
            engines=rollout.engines,
            batch_rows=batch_rows,
            rows_per_step=rows_per_step,
            num_cpus=cluster.cpus_per_engine,
            num_gpus=cluster.gpus_per_engine * rollout.tensor_parallel,
            resources=role(cluster.engines_on),
            env_vars={"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            start_timeout_s=cluster.start_timeout_s,
        )

    @property
    def tasks_per_engine(self) -> int:
        """One engine's share of a step, in tasks. More would let the first ready engine take a whole step."""
        return math.ceil(math.ceil(self.rows_per_step / self.batch_rows) / self.engines)


def step_blocks(rows: Iterable[RolloutRow], batch_rows: int) -> Iterator[pa.Table]:
    """The rows in tables of at most `batch_rows`, none of which mixes steps or versions.

    A table is a task, and a task's rows come out when its last one is done: one that held a row of the next step would
    wait for weights that are only made from the rows it holds back.
    """
    for _, members in itertools.groupby(rows, attrgetter("step", "version")):
        while batch := list(itertools.islice(members, batch_rows)):
            yield pa.table({"row": pa.array([pickle.dumps(row) for row in batch], type=pa.binary())})


def stream_rollouts(rows: Iterable[RolloutRow], worker: WorkerSettings, pool: PoolSettings) -> Generator[FinishedRow]:
    """Roll out every row once and yield what came of it as it is done, earlier steps first.

    Rows must be in the order of their steps. Closing the iterator ends the engines. Raises `EnginesDidNotStart`.
    """
    # A data set of blocks has all of them before it begins: for the paper's 104,960 rows two seconds and 70 MB.
    blocks = list(step_blocks(rows, pool.batch_rows))
    if not blocks:
        return
    coordinator, stream = find_coordinator(worker.coordinator), uuid.uuid4().hex
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = math.ceil(pool.start_timeout_s)
    # The versions already bound what is under way to a step or two. Ray Data's guesses at output sizes would hold tasks
    # back from a free engine.
    context.set_config("backpressure_policies.enabled", [])
    # What ends the stream is raised to whoever reads it; Ray Data would print it as well.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # Ray Data's own defaults restart a dead actor, and run its tasks again, without limit: `WorkerSettings` sets one.
    with DataContext.current(context):
        # `from_arrow` asks a task for each table's size, and a task of Ray Data's runs outside of any placement group.
        dataset = ray.data.from_blocks(blocks).map_batches(
            RolloutWorker,
            fn_constructor_args=(worker, stream),
            batch_size=None,
            zero_copy_batch=True,
            compute=ActorPoolStrategy(
                size=pool.engines,
                max_tasks_in_flight_per_actor=pool.tasks_per_engine,
                max_concurrent_calls_per_actor=pool.tasks_per_engine,
            ),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
            resources=dict(pool.resources) or None,
            runtime_env={"env_vars": dict(pool.env_vars)},
            **_place(),
        )
    del blocks  # Ray has its own copy, and this frame lives as long as the run
    # Nothing is fetched ahead: a batch that is held back to fill a buffer would hold its step back.
    begun = False
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            begun = True
            yield from map(pickle.loads, table.column("row").to_pylist())
    except GetTimeoutError as error:
        if begun:
            raise
        raise EnginesDidNotStart(
            f"not all {pool.engines} engines ({_asked(pool)} each) were there after cluster.start_timeout_s "
            f"{pool.start_timeout_s:g} s: `ray status` names under Demands what no node has; ask for less, add nodes, "
            "or let the run wait longer"
        ) from error
    finally:
        if ray.is_initialized():  # else the iterator was collected at exit, and asking would start a new Ray
            with contextlib.suppress(RayActorError):
                ray.get(coordinator.end.remote(stream))


def _asked(pool: PoolSettings) -> str:
    asked = {"CPU": pool.num_cpus, "GPU": pool.num_gpus, **pool.resources}
    return ", ".join(f"{amount:g} {name}" for name, amount in asked.items() if amount)


def _place() -> dict[str, Any]:
    """Where the engines go: into the placement group that this process is in (a Tune trial's), else anywhere.

    Ray puts an actor's children into its group by itself, but not those of Ray Data, which asks to spread them.
    """
    group = ray.util.get_current_placement_group()
    return {} if group is None else {"scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
