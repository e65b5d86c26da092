"""GPUs and memory of this machine against what the recipe needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from calibadv.config import Config
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.memory.advice import remedy
from calibadv.memory.items import GB, GIB, gib, model_parameters
from calibadv.memory.parts import Part, gpus_wanted, index_ram_bytes
from calibadv.memory.plan import ModelSizes

PROCESS_BYTES = 1 * GIB  # of an engine, a retriever or a learner besides what it holds: torch alone is most of it
BASE_BYTES = 2 * GIB  # driver, Ray, Serve, MLflow
_FIELDS = "index,uuid,name,memory.total,memory.free,driver_version"
_QUERY = ("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
_MIG = "MIG-"
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver describes it."""

    name: str
    total_bytes: float
    free_bytes: float
    driver: str
    index: int = 0
    uuid: str = ""


def gpus(subject: Subject, find: Callable[[], tuple[Gpu, ...]] | None = None) -> Iterator[Finding]:
    """Number, memory and driver of the GPUs here, and whether torch can use them; of a cluster's, Ray is asked."""
    needed = gpus_wanted(subject.config)
    if not needed:
        yield passed("GPUs", "this recipe needs none")
        return
    if subject.joins_cluster:
        yield passed("GPUs", f"this recipe needs {needed:g}: the cluster's are counted below")
        return
    here = (find or gpus_here)()
    yield enough_gpus(needed, here)
    if here:
        yield torch_sees_gpus()
        yield idle_gpus(here)


def gpu_memory(subject: Subject) -> Iterator[Finding]:
    """Whether what each part of the run holds, by the dry run's arithmetic, fits on a GPU here."""
    known = [gpu.total_bytes for gpu in gpus_here() if gpu.total_bytes]
    if not gpus_wanted(subject.config) or not known:
        return
    shape, smallest_gb = subject.sizes.shape, min(known) / GB
    for part in subject.plan.parts:
        words = remedy(part, subject.config, shape, smallest_gb) if part.spare_bytes(smallest_gb) < 0 else ""
        yield fits(part, smallest_gb, words)
    if subject.plan.unknown:
        yield warned("GPU memory", subject.plan.unknown, "give a model or an encoder whose config.json can be had")


def ram(subject: Subject) -> Iterator[Finding]:
    """Whether everything that runs on this machine has room in its memory."""
    if subject.joins_cluster:
        yield passed("memory", "the run is the cluster's: Ray is asked below")
        return
    yield enough_ram(ram_bytes(subject.config, subject.sizes), available_bytes())


def enough_gpus(needed: float, here: Sequence[Gpu]) -> Finding:
    """The GPUs here against the number that the recipe asks Ray for."""
    said = f"{len(here)} here, {needed:g} needed"
    if here:
        first = here[0]
        said += f": {first.name}, {gib(first.total_bytes)}, driver {first.driver}"
    if len(here) >= needed:
        return passed("GPUs", said)
    return failed(
        "GPUs",
        said,
        "lower rollout.engines or learner.learners, name more of them in CUDA_VISIBLE_DEVICES where it is set, set "
        "cluster.gpus_per_engine and learner.gpus_per_learner to 0 for a CPU, or join a cluster with cluster.address "
        "auto",
    )


def torch_sees_gpus() -> Finding:
    """Whether the installed torch was built for CUDA and finds a GPU."""
    import torch

    if torch.version.cuda is None:
        return failed("CUDA", f"torch {torch.__version__} is a CPU build", "install the gpu extra: README, 'GPUs'")
    if not torch.cuda.is_available():
        remedy = "compare the driver with the CUDA version, and look at CUDA_VISIBLE_DEVICES"
        return failed("CUDA", f"torch for CUDA {torch.version.cuda} finds no GPU", remedy)
    return passed("CUDA", f"torch for CUDA {torch.version.cuda} sees {torch.cuda.device_count()}")


def idle_gpus(here: Sequence[Gpu]) -> Finding:
    """Whether somebody else holds memory of the GPUs."""
    busy = [gpu for gpu in here if gpu.free_bytes < 0.9 * gpu.total_bytes]
    if not busy:
        return passed("GPU use", "none of their memory is taken")
    taken = ", ".join(f"GPU {gpu.index}: {gib(gpu.total_bytes - gpu.free_bytes)}" for gpu in busy)
    return warned("GPU use", f"memory is taken on {taken}", "see nvidia-smi for the process, and end it if it is yours")


def fits(part: Part, card_gb: float, remedy: str) -> Finding:
    """Whether a GPU holds what the part puts on each; an engine needs room for one rollout of full length."""
    name, spare = f"{part.name} memory", part.spare_bytes(card_gb)
    said = f"{gib(part.total_bytes)} on a GPU of {gib(card_gb * GB)}"
    if spare < 0:
        return failed(name, f"{said}, {gib(-spare)} short", remedy)
    room = f"room for {part.full_rollouts(card_gb):,} full rollouts" if part.rollout_bytes else f"{gib(spare)} left"
    return passed(name, f"{said}, {room}")


def ram_bytes(config: Config, sizes: ModelSizes) -> float:
    """Memory of the machine that everything takes when it runs on one: what is on a GPU is held there.

    But a learner reads its models into the machine's memory before they go to its GPU, and all learners do so at once.
    """
    cache = config.rollout.kv_cache_gb * GIB
    engine = PROCESS_BYTES + (0 if config.cluster.gpus_per_engine else sizes.weights_bytes + cache)
    loaded = 4 * sum(model_parameters(sizes.shape, config.method.made.critic_kind)) + sizes.reference_bytes
    learner = PROCESS_BYTES + max(loaded, 0 if config.learner.gpus_per_learner else sizes.learner_bytes)
    retrievers = 0 if config.search.elsewhere else config.search.replicas * PROCESS_BYTES + index_ram_bytes(config)
    published = 2 * sizes.weights_bytes  # the version that is read and the one that is written
    processes = config.rollout.engines * engine + max(config.learner.learners, 1) * learner + retrievers
    return processes + published + BASE_BYTES


def enough_ram(needed_bytes: float, free_bytes: float) -> Finding:
    """The memory that is free here against an estimate of what the run takes."""
    said = f"about {gib(needed_bytes)} needed, {gib(free_bytes)} free"
    if needed_bytes <= free_bytes:
        return passed("memory", said)
    remedy = (
        "end other processes, lower rollout.engines, rollout.kv_cache_gb, learner.learners or search.replicas, or let "
        "search.index be flat or ivfpq, which are mapped from the disk"
    )
    # An estimate that is out by a little must not stop anybody.
    return (warned if needed_bytes <= 1.3 * free_bytes else failed)("memory", said, remedy)


def gpus_here() -> tuple[Gpu, ...]:
    """The GPUs that the driver knows and CUDA_VISIBLE_DEVICES lets Ray have; none without `nvidia-smi`."""
    if shutil.which(_QUERY[0]) is None:
        return ()
    answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=False)
    return visible(parse_gpus(answer.stdout), os.environ.get("CUDA_VISIBLE_DEVICES")) if answer.returncode == 0 else ()


def visible(cards: Sequence[Gpu], named: str | None) -> tuple[Gpu, ...]:
    """Those of the cards that CUDA_VISIBLE_DEVICES names by index or UUID, as CUDA reads it: up to the first that is
    none. All of them where it is not set. A part of a card (MIG) counts as one whose memory is not known.
    """
    found: list[Gpu] = []
    for name in [] if named is None else named.split(","):
        card = next((card for card in cards if _is(card, name.strip())), None)
        if card is None:
            break
        found.append(replace(card, total_bytes=0.0, free_bytes=0.0) if name.strip().startswith(_MIG) else card)
    return tuple(cards if named is None else found)


def _is(card: Gpu, name: str) -> bool:
    return name == str(card.index) or name.startswith(_MIG) or (name.startswith("GPU-") and card.uuid.startswith(name))


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The lines `index, UUID, name, total MiB, free MiB, driver` of nvidia-smi. A size that it does not say is 0."""
    found = []
    for line in text.splitlines():
        if line.count(",") < 5:
            continue
        index, uuid, rest = (part.strip() for part in line.split(",", 2))
        name, total, free, driver = (part.strip() for part in rest.rsplit(",", 3))
        found.append(Gpu(name, _bytes(total), _bytes(free), driver, int(index), uuid))
    return tuple(found)


def available_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory that is free here, or in this container where that allows less."""
    free = psutil.virtual_memory().available
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        entries = (line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = next(int(value) for name, value in entries if name == "inactive_file")  # given back when asked for
        free = min(free, limit - used + cached)
    except (OSError, ValueError, StopIteration):  # no container, or one without a limit ("max")
        pass
    return int(max(0, free))


def _bytes(mib: str) -> float:
    return float(mib) * 2**20 if mib.replace(".", "", 1).isdigit() else 0.0
