"""Room on the disks: for runs, checkpoints and cache, for Ray's shared memory and for its session files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from calibadv.cluster.ray_place import session_parent, unwritable
from calibadv.config import Config
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.memory.items import GIB, gib
from calibadv.memory.plan import ModelSizes
from calibadv.model_source import hub_cache

LOGS_BYTES = 1 * GIB  # metrics, rollouts, plots and MLflow's database of a long run
CACHE_BYTES = 2 * GIB  # embeddings of a corpus of some thousands
RAY_FULL = 0.95  # of the disk: Ray then writes nothing more (its local_fs_capacity_threshold)
SHARED = Path("/dev/shm")
BY = "run.folder, checkpoint.uri, run.cache or HF_HOME"


def disks(subject: Subject) -> Iterator[Finding]:
    """Runs, checkpoints, cache, shared memory and Ray's session folder, on this machine."""
    run, sizes = subject.config.run, subject.sizes
    record, states = record_bytes(sizes), states_bytes(subject.config, sizes)
    place = subject.config.checkpoint.uri.removeprefix("file://")
    yield room("disk for runs", run.folder, record if place else record + states)
    if place and "://" not in place and states:
        yield room("disk for checkpoints", Path(place), states)
    yield room("disk for the cache", run.cache, CACHE_BYTES)
    if not subject.model.whole:
        yield room("disk for the model", hub_cache(), 2 * sizes.parameters)
    if not subject.joins_cluster:
        yield shared_memory(2 * sizes.weights_bytes, _free_bytes(SHARED))
        folder, _ = session_parent(os.environ)  # its ValueError says what to do
        usage = shutil.disk_usage(nearest(folder))
        yield not_full(folder, 1 - usage.free / usage.total)


def record_bytes(sizes: ModelSizes) -> float:
    """What a run leaves in its folder: the model and its logs."""
    return 2 * sizes.weights_bytes + LOGS_BYTES


def states_bytes(config: Config, sizes: ModelSizes) -> float:
    """What it leaves where its checkpoints lie: these, and the sentinel's snapshots."""
    kept = 2 if config.sentinel.action == "rollback" else 0  # the good one, and one that is not looked at yet
    if config.checkpoint.every:
        kept += config.checkpoint.keep_last + config.checkpoint.keep_best
    # A new one is written before the oldest goes.
    return sizes.checkpoint_bytes * (kept + 1 if kept else 0)


def room(name: str, folder: Path, needed_bytes: float) -> Finding:
    """Whether `folder`, or the nearest one above it that exists, can be written to and has room."""
    if fault := unwritable(folder):
        return failed(name, fault, f"choose another with {BY}, or mend its rights")
    there = nearest(folder)
    free = _free_bytes(there)
    said = f"{gib(free)} free at {there}, about {gib(needed_bytes)} needed"
    if free >= needed_bytes:
        return passed(name, said)
    return failed(name, said, f"make room, or choose another disk with {BY}")


def shared_memory(needed_bytes: float, free_bytes: float) -> Finding:
    """Ray's object store, through which published weights go to the engines."""
    said = f"{gib(free_bytes)} free in {SHARED}, two versions of the weights take {gib(needed_bytes)}"
    if free_bytes >= needed_bytes + 0.1 * GIB:
        return passed("shared memory", said)
    remedy = "give the container more of it (docker run --shm-size): Ray otherwise uses the disk, which is slow"
    return warned("shared memory", said, remedy)


def not_full(folder: Path, full: float) -> Finding:
    """Ray stops storing objects when the disk of its session folder is 95 % full."""
    said = f"the disk of {folder} is {full:.0%} full"
    if full < RAY_FULL:
        return passed("Ray's disk", said)
    return failed("Ray's disk", said, f"make room, or set RAY_TMPDIR: Ray stores nothing above {RAY_FULL:.0%}")


def nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free if folder.is_dir() else 0
