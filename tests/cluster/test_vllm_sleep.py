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
    engine._wake_up(calls)
    assert calls == (["reset", "sleep 1", "wake weights", "wake kv_cache"] if sleep_mode else ["reset"])
