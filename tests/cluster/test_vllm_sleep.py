"""vLLM's sleep mode as it is asked for and used; where there is no GPU, a stand-in takes the calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.cluster.vllm_engine import VllmEngine
from calibadv.cluster.vllm_settings import VllmSettings, engine_arguments


@pytest.mark.parametrize(
    ("cuda", "sleep_mode", "wanted"), [(True, True, True), (True, False, False), (False, True, None)]
)
def test_sleep_mode_is_asked_for_on_gpus_alone(cuda: bool, sleep_mode: bool, wanted: bool | None) -> None:
    arguments = engine_arguments(VllmSettings("m", sleep_mode=sleep_mode), Path("m"), cuda)
    assert arguments.get("enable_sleep_mode") is wanted


class Calls(list[str]):
    """Stands in for vLLM's LLMEngine."""

    def reset_prefix_cache(self) -> bool:
        self.append("reset")
        return True

    def sleep(self, level: int) -> None:
        self.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.append(f"wake {'+'.join(tags)}")


@pytest.mark.parametrize("sleep_mode", [True, False])
def test_weights_wake_before_the_cache_and_without_sleep_mode_prefixes_alone_are_forgotten(sleep_mode: bool) -> None:
    engine, calls = VllmEngine.__new__(VllmEngine), Calls()
    engine._waiting, engine._sleep_mode = {}, sleep_mode
    engine._fall_asleep(calls)
    engine._wake_up(calls, lambda: (8, 10))
    assert calls == (["reset", "sleep 2", "wake weights", "wake kv_cache"] if sleep_mode else ["reset"])


@pytest.mark.parametrize("said", ["CUDA Error: out of memory at cumem_allocator.cpp:62", "CUDA out of memory. Tried"])
def test_an_engine_without_room_to_wake_says_which_share_would_have_it(said: str) -> None:
    class Full(Calls):
        def wake_up(self, tags: list[str]) -> None:
            if tags == ["kv_cache"]:
                raise RuntimeError(said)

    class Broken(Calls):
        def wake_up(self, tags: list[str]) -> None:
            raise RuntimeError(f"no {tags[0]}")

    engine = VllmEngine.__new__(VllmEngine)
    engine._sleep_mode, engine._settings = True, VllmSettings("m", gpu_memory_utilization=0.85)
    with pytest.raises(RuntimeError, match=r"47% of it were free, .* = 0.85; set that to 0.46 or less"):
        engine._wake_up(Full(), lambda: (4_670, 10_000))
    with pytest.raises(RuntimeError, match="no weights"):
        engine._wake_up(Broken(), lambda: (4_670, 10_000))
