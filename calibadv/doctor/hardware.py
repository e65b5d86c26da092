"""GPUs and memory of this machine against what the recipe needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.needs import Needs, needs_of, ram_gib
from calibadv.doctor.subject import Subject
from calibadv.memory.plan import gpus_wanted

GIB = 2**30
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver describes it."""

    name: str
    total_gib: float
    free_gib: float
    driver: str


def gpus(subject: Subject) -> Iterator[Finding]:
    """Number, memory and driver of the GPUs here, and whether torch can use them; of a cluster's, Ray is asked."""
    needed = gpus_wanted(subject.config)
    if not needed:
        yield passed("GPUs", "this recipe needs none")
        return
    if subject.joins_cluster:
        yield passed("GPUs", f"this recipe needs {needed:g}: the cluster's are counted below")
        return
    here = gpus_here()
    yield enough_gpus(needed, here)
    if here:
        yield torch_sees_gpus()
        yield idle_gpus(here)


def gpu_memory(subject: Subject) -> Iterator[Finding]:
    """Whether an engine and a learner of this recipe each fit on a GPU here."""
    config, here = subject.config, gpus_here()
    if not gpus_wanted(config) or not here:
        return
    needs, smallest = needs_of(config, subject.model.path), min(gpu.total_gib for gpu in here)
    if config.cluster.gpus_per_engine:
        yield engine_fits(needs, smallest, config.rollout.gpu_memory_utilization, config.rollout.tensor_parallel)
    if config.learner.gpus_per_learner:
        yield learner_fits(needs, smallest)


def ram(subject: Subject) -> Iterator[Finding]:
    """Whether everything that runs on this machine has room in its memory."""
    if subject.joins_cluster:
        yield passed("memory", "the run is the cluster's: Ray is asked below")
        return
    yield enough_ram(ram_gib(subject.config, needs_of(subject.config, subject.model.path)), available_gib())


def enough_gpus(needed: float, here: Sequence[Gpu]) -> Finding:
    """The GPUs here against the number that the recipe asks Ray for."""
    said = f"{len(here)} here, {needed:g} needed"
    if here:
        first = here[0]
        said += f": {first.name}, {first.total_gib:.0f} GiB, driver {first.driver}"
    if len(here) >= needed:
        return passed("GPUs", said)
    return failed(
        "GPUs",
        said,
        "lower rollout.engines or learner.learners, set cluster.gpus_per_engine and learner.gpus_per_learner to 0 for "
        "a CPU, or join a cluster with cluster.address auto",
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
    busy = [index for index, gpu in enumerate(here) if gpu.free_gib < 0.9 * gpu.total_gib]
    if not busy:
        return passed("GPU use", "none of their memory is taken")
    taken = ", ".join(f"GPU {i}: {here[i].total_gib - here[i].free_gib:.1f} GiB" for i in busy)
    return warned("GPU use", f"memory is taken on {taken}", "see nvidia-smi for the process, and end it if it is yours")


def engine_fits(needs: Needs, gpu_gib: float, utilization: float, tensor_parallel: int) -> Finding:
    """An engine's share of the weights, and the KV cache of one rollout at least, in what vLLM may take of a GPU."""
    room = gpu_gib * utilization
    weights, rollout = needs.weights_gib / tensor_parallel, needs.rollout_gib / tensor_parallel
    said = f"{weights:.1f} GiB of weights in {room:.1f} GiB ({utilization:g} of {gpu_gib:.0f}) a GPU"
    if weights + rollout < room:
        rollouts = (room - weights) / rollout if rollout else float("inf")
        return passed("engine memory", f"{said}; the rest holds at most {rollouts:,.0f} full rollouts")
    remedy = "raise rollout.tensor_parallel or rollout.gpu_memory_utilization, or lower rollout.max_tokens"
    return failed("engine memory", f"{said} leave no room for a rollout of {rollout:.1f} GiB", remedy)


def learner_fits(needs: Needs, gpu_gib: float) -> Finding:
    """A learner's state, activations and logits on a GPU."""
    state = needs.learner_gib - needs.work_gib
    said = f"{state:.1f} GiB of state and {needs.work_gib:.1f} GiB of work, {gpu_gib:.0f} GiB a GPU"
    if needs.learner_gib < 0.95 * gpu_gib:
        return passed("learner memory", said)
    remedy = (
        "share the state (learner.zero), turn on learner.gradient_checkpointing, lower learner.token_budget, or take "
        "a smaller model"
    )
    return failed("learner memory", said, remedy)


def enough_ram(needed_gib: float, free_gib: float) -> Finding:
    """The memory that is free here against an estimate of what the run takes."""
    said = f"about {needed_gib:.1f} GiB needed, {free_gib:.1f} GiB free"
    if needed_gib <= free_gib:
        return passed("memory", said)
    remedy = "end other processes, or lower rollout.engines, rollout.kv_cache_gb, learner.learners or search.replicas"
    # An estimate that is out by a little must not stop anybody.
    return (warned if needed_gib <= 1.3 * free_gib else failed)("memory", said, remedy)


def gpus_here() -> tuple[Gpu, ...]:
    """The GPUs that the driver knows; none without `nvidia-smi`."""
    if shutil.which(_QUERY[0]) is None:
        return ()
    answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=False)
    return parse_gpus(answer.stdout) if answer.returncode == 0 else ()


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The lines `name, total MiB, free MiB, driver` of nvidia-smi. A number that it does not know counts 0."""
    found = []
    for line in text.splitlines():
        if line.count(",") < 3:
            continue
        name, total, free, driver = (part.strip() for part in line.rsplit(",", 3))
        found.append(Gpu(name, _mib(total), _mib(free), driver))
    return tuple(found)


def available_gib(cgroup: Path = _CGROUP) -> float:
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
    return float(max(0, free)) / GIB


def _mib(text: str) -> float:
    return float(text) / 1024 if text.replace(".", "", 1).isdigit() else 0.0
