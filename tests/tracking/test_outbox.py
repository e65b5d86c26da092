"""The outbox loses nothing, waits for nothing, and keeps the order."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from calibadv.tracking.outbox import Operation, Outbox, Rejected
from calibadv.tracking.run_folder import read_json_lines


class Store:
    """Takes operations while `up`."""

    def __init__(self, up: bool = True) -> None:
        self.up = up
        self.taken: list[int] = []

    def __call__(self, operation: Operation) -> None:
        if not self.up:
            raise ConnectionError("nobody there")
        if operation["n"] < 0:
            raise Rejected("negative")
        self.taken.append(operation["n"])


def test_operations_arrive_in_order(tmp_path: Path) -> None:
    store = Store()
    outbox = Outbox(store, tmp_path / "spool.jsonl")
    for n in range(50):
        outbox.put({"op": "x", "n": n})
    assert outbox.close() == 0
    assert store.taken == list(range(50))
    assert not (tmp_path / "spool.jsonl").exists()


def test_a_dead_store_fills_the_spool_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(Store(up=False), tmp_path / "spool.jsonl", first_pause_s=0.0)
    for n in range(5):
        outbox.put({"op": "x", "n": n})
    assert outbox.close() == 5
    assert [line["n"] for line in read_json_lines(tmp_path / "spool.jsonl")] == [0, 1, 2, 3, 4]
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1
    assert "training goes on" in caplog.text


def test_a_store_that_comes_back_gets_the_spool_first(tmp_path: Path) -> None:
    store = Store(up=False)
    outbox = Outbox(store, tmp_path / "spool.jsonl", first_pause_s=0.0, longest_pause_s=0.0)
    outbox.put({"op": "x", "n": 1})
    outbox.put({"op": "x", "n": 2})
    store.up = True
    outbox.put({"op": "x", "n": 3})
    assert outbox.close() == 0
    assert store.taken == [1, 2, 3]


def test_the_spool_of_an_earlier_process_is_delivered(tmp_path: Path) -> None:
    (tmp_path / "spool.jsonl").write_text('{"op": "x", "n": 1}\n{"op": "x", "n": 2}\n{"op": ')
    store = Store()
    assert Outbox(store, tmp_path / "spool.jsonl").close() == 0
    assert store.taken == [1, 2]


def test_a_rejected_operation_is_dropped_and_blocks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    outbox = Outbox(store, tmp_path / "spool.jsonl")
    for n in (1, -1, 2):
        outbox.put({"op": "x", "n": n})
    assert outbox.close() == 0
    assert store.taken == [1, 2]
    assert "dropped x: negative" in caplog.text


def test_a_hanging_store_holds_up_neither_put_nor_close_and_loses_nothing(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_: Operation) -> None:
        release.wait(30)

    outbox = Outbox(hang, tmp_path / "spool.jsonl", capacity=3)
    for n in range(6):
        outbox.put({"op": "x", "n": n})
    assert outbox.close(timeout_s=0.05) == 6
    assert {line["n"] for line in read_json_lines(tmp_path / "spool.jsonl")} == set(range(6))
    outbox.put({"op": "x", "n": 6})  # after close: kept, not raised
    assert len(read_json_lines(tmp_path / "spool.jsonl")) == 7
    release.set()


def test_a_spool_that_cannot_be_written_is_said_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(_: Operation) -> None:
        raise ConnectionError("no answer")

    (tmp_path / "file").write_text("")
    outbox = Outbox(dead, tmp_path / "file" / "spool.jsonl", first_pause_s=0.01)
    for number in range(3):
        outbox.put({"op": "metrics", "step": number})
    assert outbox.close(timeout_s=10) == 0
    assert caplog.text.count("what MLflow does not take meanwhile is lost") == 1
