"""The follower loses nothing, waits for nothing, and keeps the order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from calibadv.json_lines import json_line
from calibadv.tracking.follower import OPERATIONS, Follower, Operation, Rejected


class Store:
    """Takes operations while `up`; what it took, by a word each."""

    def __init__(self, up: bool = True, offsets: Mapping[str, int] | None = None) -> None:
        self.up, self.taken, self.tries = up, [], 0
        self.offsets = dict(offsets or {})

    taken: list[str]

    def connect(self) -> Mapping[str, int]:
        self.deliver({"op": "connect"})
        self.taken.clear()
        return self.offsets

    def deliver(self, operation: Operation) -> None:
        self.tries += 1
        if not self.up:
            raise ConnectionError("nobody there")
        if operation.get("n", 0) < 0:
            raise Rejected("negative")
        word = operation.get("n", operation.get("step", operation.get("record")))
        self.taken.append(f"{operation['op']} {word}")

    def remember(self, offsets: Mapping[str, int]) -> None:
        self.offsets = dict(offsets)


def append(folder: Path, name: str, *values: Mapping[str, object]) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("".join(map(json_line, values)))


def put(folder: Path, *numbers: int) -> None:
    append(folder, OPERATIONS, *({"op": "x", "n": n} for n in numbers))


def follower(folder: Path, store: Store) -> Follower:
    return Follower(folder, store, store.offsets, every_s=0.01, first_pause_s=0.01, longest_pause_s=0.02)


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_appended_arrives_in_order_and_operations_last(tmp_path: Path) -> None:
    store = Store()
    put(tmp_path, 1)
    append(tmp_path, "metrics.jsonl", {"step": 1, "reward": 0.5}, {"step": 2})
    append(tmp_path, "rollouts.jsonl", {"a": "b"})
    following = follower(tmp_path, store)
    wait_for(lambda: len(store.taken) == 4)
    assert store.taken == ["metrics 1", "metrics 2", "trace {'a': 'b'}", "x 1"]
    put(tmp_path, 2, 3)
    assert following.close(30) == 0
    assert store.taken[4:] == ["x 2", "x 3"]


def test_an_operation_waits_for_the_metrics_that_were_written_before_it(tmp_path: Path) -> None:
    class Late(Store):
        def deliver(self, operation: Operation) -> None:
            super().deliver(operation)
            if operation.get("step") == 1:  # all of metrics.jsonl is read by now
                append(tmp_path, "metrics.jsonl", {"step": 2})
                put(tmp_path, 2)

    store = Late()
    put(tmp_path, 1)
    append(tmp_path, "metrics.jsonl", {"step": 1})
    following = follower(tmp_path, store)
    wait_for(lambda: len(store.taken) == 4)
    assert following.close(30) == 0
    assert store.taken == ["metrics 1", "x 1", "metrics 2", "x 2"]


def test_a_dead_store_holds_nothing_up_is_said_once_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(up=False)
    following = follower(tmp_path, store)
    put(tmp_path, 1, 2)
    wait_for(lambda: store.tries > 3)
    store.up = True
    wait_for(lambda: len(store.taken) == 2)
    put(tmp_path, 3)
    assert following.close(30) == 0
    assert store.taken == ["x 1", "x 2", "x 3"]
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        f"nobody there; training goes on: MLflow catches up later with what is in {tmp_path}",
        f"MLflow answers again and has caught up with {tmp_path}",
    ]


def test_what_is_owed_at_the_end_is_counted_and_the_next_process_delivers_it_once(tmp_path: Path) -> None:
    store = Store()
    first = follower(tmp_path, store)
    put(tmp_path, 1)
    wait_for(lambda: store.offsets.get(OPERATIONS, 0) > 0)
    store.up = False
    put(tmp_path, 2)
    append(tmp_path, "metrics.jsonl", {"step": 7})
    assert first.close(30) == 2
    later = Store(offsets=store.offsets)
    assert follower(tmp_path, later).close(30) == 0
    assert later.taken == ["metrics 7", "x 2"]


def test_a_torn_last_line_is_waited_for(tmp_path: Path) -> None:
    store = Store()
    following = follower(tmp_path, store)
    put(tmp_path, 1)
    with (tmp_path / OPERATIONS).open("a") as file:
        file.write('{"op": "x", ')
    wait_for(lambda: store.taken == ["x 1"])
    with (tmp_path / OPERATIONS).open("a") as file:
        file.write('"n": 2}\n')
    assert following.close(30) == 0
    assert store.taken == ["x 1", "x 2"]


def test_a_file_that_went_back_to_an_earlier_moment_is_followed_anew(tmp_path: Path) -> None:
    append(tmp_path, "metrics.jsonl", {"step": 1}, {"step": 2})
    store = Store()
    follower(tmp_path, store).close(30)
    (tmp_path / "metrics.jsonl").write_text(json_line({"step": 1}))
    again = Store(offsets=store.offsets)
    following = follower(tmp_path, again)
    wait_for(lambda: again.taken == ["metrics 1"])  # which the store is to know
    append(tmp_path, "metrics.jsonl", {"step": 2})
    assert following.close(30) == 0
    assert again.taken == ["metrics 1", "metrics 2"]


def test_what_is_refused_or_is_no_line_of_ours_is_dropped_and_blocks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    put(tmp_path, 1, -1, 2)
    append(tmp_path, "metrics.jsonl", {"no": "step"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("{cut\n")
    assert follower(tmp_path, store).close(30) == 0
    assert store.taken == ["x 1", "x 2"]
    assert f"dropped a line of {tmp_path / OPERATIONS} (x): negative" in caplog.text
    assert caplog.text.count("is not JSON (cut by a crash?), skipped") == 1


def test_a_hanging_store_does_not_hold_up_close_and_what_it_took_late_is_not_remembered(tmp_path: Path) -> None:
    release = threading.Event()

    class Hanging(Store):
        def deliver(self, operation: Operation) -> None:
            if operation["op"] == "x":
                release.wait(30)
            super().deliver(operation)

    store = Hanging()
    put(tmp_path, *range(6))
    following = follower(tmp_path, store)
    assert following.close(0.1) == 6
    release.set()
    wait_for(lambda: store.taken == ["x 0"])
    following._thread.join(30)
    assert (store.taken, store.offsets) == (["x 0"], {})


def test_a_large_file_is_waited_for_longer_than_what_comes_behind_it(tmp_path: Path) -> None:
    class Slow(Store):
        def deliver(self, operation: Operation) -> None:
            if operation["op"] == "artifact":
                time.sleep(0.5)
            super().deliver(operation)

    (tmp_path / "model").mkdir()
    with (tmp_path / "model" / "weights").open("wb") as file:
        file.truncate(20_000_000_000)  # a hole: a thousand seconds of waiting, no byte of the disk
    store = Slow()
    append(tmp_path, OPERATIONS, {"op": "artifact", "path": "model", "n": 1}, {"op": "end", "n": 2})
    assert follower(tmp_path, store).close(0.1) == 0
    assert store.taken == ["artifact 1", "end 2"]


def test_a_run_that_the_store_does_not_have_is_delivered_whole(tmp_path: Path) -> None:
    put(tmp_path, 1, 2)
    store = Store()
    Follower(tmp_path, store, {OPERATIONS: 10_000}).close(30)
    assert store.taken == ["x 1", "x 2"]
