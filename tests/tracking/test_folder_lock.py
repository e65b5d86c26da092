"""A folder has one writer; what a dead one left does not block it for ever."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calibadv.tracking.folder_lock import LOCK, OWNER, STALE_S, FolderLock, FolderLocked

REMEDY = "choose another with --run.name"


def left_by(folder: Path, host: str, silent_s: float) -> None:
    """The folder of a process that did not give it back."""
    (folder / OWNER).write_text(json.dumps({"pid": 123, "host": host, "started": "2026-01-31 10:00:00"}))
    moment = time.time() - silent_s
    os.utime(folder / OWNER, (moment, moment))


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, REMEDY)
    words = rf"is being written by process {os.getpid()} on {socket.gethostname()} since \d{{4}}-.*--run.name"
    for _ in range(2):
        with pytest.raises(FolderLocked, match=words):
            FolderLock(tmp_path, REMEDY)
    lock.close()
    lock.close()
    FolderLock(tmp_path, REMEDY).close()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from calibadv.tracking.folder_lock import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}), "wait")
print(flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(FolderLocked, match=f"is being written by process {other.pid} on"):
            FolderLock(tmp_path, REMEDY)
        other.kill()
    FolderLock(tmp_path, REMEDY).close()


def test_an_owner_elsewhere_is_believed_to_live_until_it_has_been_silent_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_by(tmp_path, "other-machine", silent_s=STALE_S - 30)
    for _ in range(2):  # a refused attempt is no sign of life
        with pytest.raises(FolderLocked, match=r"process 123 on other-machine .* was alive \d+ s ago.* again in \d+ s"):
            FolderLock(tmp_path, REMEDY)
    left_by(tmp_path, "other-machine", silent_s=STALE_S + 30)
    with caplog.at_level(logging.WARNING):
        FolderLock(tmp_path, REMEDY).close()
    assert "was left by process 123 on other-machine" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_an_owner_shows_that_it_lives(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, REMEDY, beat_s=0.01)
    owner = tmp_path / OWNER
    os.utime(owner, (1, 1))
    deadline = time.monotonic() + 300
    while owner.stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner.stat().st_mtime > 1
    lock.close()


@pytest.mark.parametrize("content", ["", "4711", "{", '{"pid": 1}', "[]"])
def test_a_file_that_names_no_owner_blocks_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / OWNER).write_text(content)
    FolderLock(tmp_path, REMEDY).close()
