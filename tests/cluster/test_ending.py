import threading

import pytest

from calibadv.cluster.ending import ASKING, end_ray
from calibadv.rllib.stall import StallWatch


def test_ray_goes_after_the_last_thread_that_asks_it() -> None:
    order: list[str] = []
    released = threading.Event()

    def ask() -> None:
        released.wait()
        order.append("asked")

    threads = [threading.Thread(target=ask, name=f"{begins}x", daemon=True) for begins in ASKING]
    for thread in threads:
        thread.start()
    threading.Timer(0.05, released.set).start()
    end_ray(shutdown=lambda: order.append("Ray is shut down"))
    assert order == ["asked"] * len(ASKING) + ["Ray is shut down"]


def test_a_thread_that_does_not_end_is_named_and_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    released = threading.Event()
    stuck = threading.Thread(target=released.wait, name="StreamingExecutor-dataset_7_0", daemon=True)
    stuck.start()
    shut: list[bool] = []
    end_ray(patience_s=0.01, shutdown=lambda: shut.append(True))
    released.set()
    stuck.join()
    assert shut == [True]
    assert "while StreamingExecutor-dataset_7_0 may still ask it" in caplog.text


def test_nobody_looks_for_stalls_once_nothing_is_waited_for() -> None:
    watch = StallWatch(after_s=0.04)
    asked = threading.Event()
    with watch.waiting("the rollouts", progress=asked.set):
        assert asked.wait(10)
    shut: list[bool] = []
    end_ray(shutdown=lambda: shut.append(any(thread.name == "stall-watch" for thread in threading.enumerate())))
    assert shut == [False]
    with watch.waiting("the next rollouts"):
        assert any(thread.name == "stall-watch" for thread in threading.enumerate())
