"""What is written is whole or not there, and what was there before stays until then."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from calibadv.files import once_at_a_time, side_by_side, whole_file, whole_folder, write_bytes, write_text


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_in_one_move(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.json"
    assert write_text(path, "é\r\n", durable=durable) == path
    assert path.read_bytes() == "é\r\n".encode()
    with whole_file(path, durable=durable) as draft:
        draft.write_bytes(b"new")
        assert path.read_bytes() == "é\r\n".encode()
    assert write_bytes(path, path.read_bytes() + b"er").read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def torn(writer: AbstractContextManager[Path], inside: str) -> None:
    with writer as draft:
        (draft / inside).write_text("half")
        raise KeyboardInterrupt


def test_a_block_that_fails_leaves_what_there_was_and_no_draft(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    (tmp_path / "folder").mkdir()
    write_text(tmp_path / "folder" / "b", "old")
    with pytest.raises(KeyboardInterrupt):
        torn(whole_file(tmp_path / "a"), "")
    with pytest.raises(KeyboardInterrupt):
        torn(whole_folder(tmp_path / "folder"), "b")
    assert (tmp_path / "a").read_text() == (tmp_path / "folder" / "b").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_a_folder_takes_the_place_of_an_earlier_one_and_of_a_dead_builder_s_part(tmp_path: Path) -> None:
    for name in ("folder", "folder.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").touch()
    with whole_folder(tmp_path / "folder") as draft:
        (draft / "fresh").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["fresh"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_one_process_at_a_time_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
from calibadv.files import once_at_a_time
with once_at_a_time(Path({str(tmp_path / "index")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    entered = threading.Event()

    def enter() -> None:
        with once_at_a_time(tmp_path / "index"):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.3)
    other.kill()
    other.wait()
    other.stdout.close()
    assert entered.wait(60)
    thread.join()


def test_items_are_worked_at_side_by_side_answered_in_order_and_the_first_error_is_raised() -> None:
    together = threading.Barrier(2, timeout=60)  # one alone would wait for the other

    def halved(number: int) -> float:
        together.wait()
        return number / 2

    assert list(side_by_side(halved, [3, 1])) == [1.5, 0.5]
    with pytest.raises(ValueError, match="'b'"):
        list(side_by_side(int, ["1", "b", "c"]))
