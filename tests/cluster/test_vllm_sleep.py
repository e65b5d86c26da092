"""vLLM's sleep mode as it is asked for and used; where there is no GPU, a stand-in takes the calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibadv.cluster.vllm_engine import VllmEngine
from calibadv.cluster.vllm_process_engine import VllmProcessEngine
from calibadv.cluster.vllm_settings import VllmSettings, engine_arguments


@pytest.mark.parametrize(
    ("cuda", "sleep_mode", "wanted"), [(True, True, True), (True, False, False), (False, True, None)]
)
def test_sleep_mode_is_asked_for_on_gpus_alone(cuda: bool, sleep_mode: bool, wanted: bool | None) -> None:
    arguments = engine_arguments(VllmSettings("m", sleep_mode=sleep_mode), Path("m"), cuda)
    assert arguments.get("enable_sleep_mode") is wanted


class Calls(list[str]):
    """Stands in for vLLM's LLMEngine, with two ranks."""

    def reset_prefix_cache(self) -> bool:
        self.append("reset")
        return True

    def sleep(self, level: int) -> None:
        self.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.append(f"wake {'+'.join(tags)}")

    def collective_rpc(self, name: str) -> list[tuple[int, int]]:
        assert name == "gpu_memory"
        return [(8_000, 10_000), (4_670, 10_000)]


class Full(Calls):
    """A GPU that has no room for the cache."""

    said = ""

    def wake_up(self, tags: list[str]) -> None:
        if tags == ["kv_cache"]:
            raise RuntimeError(self.said)


class Awaited:
    """The same as AsyncLLM has it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            return getattr(self._calls, name)(*arguments, **named)

        return call


def in_process(calls: Calls, sleep_mode: bool) -> tuple[Callable[[], None], Callable[[], None]]:
    """Its sleep and its wake."""
    engine = VllmEngine.__new__(VllmEngine)
    engine._waiting, engine._sleep_mode = {}, sleep_mode
    engine._settings = VllmSettings("m", gpu_memory_utilization=0.85)
    return lambda: engine._fall_asleep(calls), lambda: engine._wake_up(calls)


def in_its_own(calls: Calls, sleep_mode: bool) -> tuple[Callable[[], None], Callable[[], None]]:
    engine = VllmProcessEngine.__new__(VllmProcessEngine)
    engine._failure, engine._running, engine._sleep_mode = "", set(), sleep_mode
    engine._settings = VllmSettings("m", gpu_memory_utilization=0.85)
    engine._engine = Awaited(calls)
    return lambda: asyncio.run(engine._fall_asleep()), lambda: asyncio.run(engine._wake_up())


ENGINES = pytest.mark.parametrize("engine", [in_process, in_its_own])


@ENGINES
@pytest.mark.parametrize("sleep_mode", [True, False])
def test_weights_wake_before_the_cache_and_without_sleep_mode_prefixes_alone_are_forgotten(
    engine: Any, sleep_mode: bool
) -> None:
    calls = Calls()
    sleep, wake = engine(calls, sleep_mode)
    sleep()
    wake()
    assert calls == (["reset", "sleep 2", "wake weights", "wake kv_cache"] if sleep_mode else ["reset"])


@ENGINES
@pytest.mark.parametrize("said", ["CUDA Error: out of memory at cumem_allocator.cpp:62", "CUDA out of memory. Tried"])
def test_an_engine_without_room_to_wake_says_which_share_would_have_it(engine: Any, said: str) -> None:
    calls = Full()
    calls.said = said
    _, wake = engine(calls, True)
    with pytest.raises(RuntimeError, match=r"47% of it were free, .* = 0\.85; set that to 0\.46 or less"):
        wake()
    calls.said = "no kv_cache"
    with pytest.raises(RuntimeError, match=r"^no kv_cache$"):
        wake()
