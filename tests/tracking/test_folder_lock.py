"""A folder has one writer; what a dead one left does not block it for ever."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path

import pytest

from calibadv.tracking import folder_lock
from calibadv.tracking.folder_lock import STALE_S, FolderLock, FolderLocked


def left_by(path: Path, host: str, silent_s: float) -> None:
    """The lock of a process that did not give it back."""
    path.write_text(json.dumps({"pid": 123, "host": host, "started": "2026-01-31 10:00:00"}))
    moment = time.time() - silent_s
    os.utime(path, (moment, moment))


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / ".lock")
    words = rf"is being written by process {os.getpid()} on {socket.gethostname()} since \d{{4}}-.*--run.name"
    with pytest.raises(FolderLocked, match=words):
        FolderLock(tmp_path / ".lock")
    lock.close()
    lock.close()
    FolderLock(tmp_path / ".lock").close()


def test_a_lock_that_a_dead_process_of_this_machine_left_is_taken(tmp_path: Path) -> None:
    left_by(tmp_path / ".lock", socket.gethostname(), silent_s=0)
    FolderLock(tmp_path / ".lock").close()


def test_an_owner_elsewhere_is_believed_to_live_until_it_has_been_silent_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".lock"
    left_by(path, "other-machine", silent_s=STALE_S - 30)
    for _ in range(2):  # a refused attempt is no sign of life
        with pytest.raises(FolderLocked, match=r"process 123 on other-machine .* was alive \d+ s ago.* again in \d+ s"):
            FolderLock(path)
    left_by(path, "other-machine", silent_s=STALE_S + 30)
    with caplog.at_level(logging.WARNING):
        FolderLock(path).close()
    assert "was left by process 123 on other-machine" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


def test_an_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "BEAT_S", 0.01)
    path = tmp_path / ".lock"
    lock = FolderLock(path)
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 30
    while path.stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 1
    lock.close()


@pytest.mark.parametrize("content", ["", "4711", "{", '{"pid": 1}', "[]"])
def test_a_lock_file_that_says_nothing_blocks_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    FolderLock(tmp_path / ".lock").close()
