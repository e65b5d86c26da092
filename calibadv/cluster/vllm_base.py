"""What vLLM's two engines have in common: how they are opened, and the words for what goes wrong in either."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from calibadv.cluster.vllm_settings import (
    VllmSettings,
    check_model_folder,
    cuda_available,
    engine_arguments,
    no_room_to_wake,
    out_of_memory,
    prepare_environment,
)
from calibadv.rollout.protocols import EngineDied

logger = logging.getLogger(__name__)


class VllmBase:
    """An engine's settings, its version, and whether its weights are whole."""

    def __init__(self, settings: VllmSettings) -> None:
        folder, cuda = check_model_folder(settings.model), cuda_available()
        self._settings = settings
        self._arguments = engine_arguments(settings, folder, cuda)
        self._sleep_mode = bool(self._arguments.get("enable_sleep_mode"))
        if settings.sleep_mode and not self._sleep_mode:
            logger.debug("vLLM has no sleep mode on a CPU: a sleeping engine keeps its memory")
        self._version = 0
        self._ids = itertools.count()  # of requests
        self._half_loaded = False
        prepare_environment(settings, cuda)

    @property
    def version(self) -> int:
        """The policy version of the weights that it serves."""
        return self._version

    @contextmanager
    def _waking(self, gpus: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Says of memory that is short how much there is. `gpus`: as `no_room_to_wake` takes them."""
        try:
            yield
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise RuntimeError(no_room_to_wake(gpus, self._settings.gpu_memory_utilization)) from error


def gone(why: object) -> EngineDied:
    """What a request, or a call, to an engine that has ended raises."""
    return EngineDied(f"the vLLM engine is gone: {why}")


def half_loaded() -> EngineDied:
    """What a request raises while the weights are of two versions."""
    return EngineDied("the last load_weights failed half-way: load complete weights before generating")


def check_idle(running: int) -> None:
    """RuntimeError while requests run."""
    if running:
        raise RuntimeError(f"{running} requests are running: wait for them before changing weights or caches")


def check_forgotten(reset: bool) -> None:
    """RuntimeError where vLLM has not `reset` its prefix cache."""
    if not reset:
        raise RuntimeError("vLLM did not reset its prefix cache: some of its blocks are still in use")
