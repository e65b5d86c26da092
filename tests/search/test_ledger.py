"""The ledger's file: what is kept, for whom, and which files are none."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from calibadv.kept_answers import on_network
from calibadv.search.ledger import Ledger
from calibadv.types import Document

ENGINE = {"url": "http://127.0.0.1:9/find", "top_k": 3}
OSLO = (Document("1", "Oslo", "Oslo is in Norway.", 0.1 + 0.2), Document("2", "", "💡 and é"))


def test_an_answer_comes_back_as_it_was_also_an_empty_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "l.sqlite", ENGINE)
    assert ledger.find("oslo") is None
    assert ledger.keep("oslo", OSLO) == OSLO
    assert ledger.keep("nothing", ()) == ()
    ledger.close()
    again = Ledger(tmp_path / "deep" / "l.sqlite", dict(reversed(ENGINE.items())))
    assert again.find("oslo") == OSLO
    assert again.find("nothing") == ()
    assert again.count() == 2


def test_half_a_character_of_an_earlier_release_comes_back_as_a_question_mark(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", ENGINE)
    ledger.keep("half", (Document("1", "a \ud800", "\udc00 and é", 0.5),))
    assert ledger.find("half") == (Document("1", "a ?", "? and é", 0.5),)


def test_the_first_answer_stays_and_is_what_a_later_one_is_told(tmp_path: Path) -> None:
    ours, theirs = (Ledger(tmp_path / "l.sqlite", ENGINE) for _ in range(2))
    assert ours.find("oslo") is theirs.find("oslo") is None  # both ask the engine
    assert theirs.keep("oslo", OSLO) == OSLO
    assert ours.keep("oslo", OSLO[:1]) == OSLO


def test_engines_share_a_file_and_no_answer(tmp_path: Path) -> None:
    three, five = Ledger(tmp_path / "l.sqlite", ENGINE), Ledger(tmp_path / "l.sqlite", {**ENGINE, "top_k": 5})
    three.keep("oslo", OSLO)
    assert five.find("oslo") is None


PROCESS = """
import sys
from pathlib import Path
from calibadv.search.ledger import Ledger
from calibadv.types import Document
ledger = Ledger(Path(sys.argv[1]), {"name": "e"})
for query in range(100):
    found = ledger.find(str(query)) or ledger.keep(str(query), (Document(sys.argv[2], "", ""),))
print([ledger.find(str(query))[0].id for query in range(100)])
"""


def test_processes_that_write_one_new_file_at_once_agree_on_every_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "l.sqlite")
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, path, name], stdout=subprocess.PIPE, text=True)
        for name in "abcd"
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(set(said)) == 1
    assert len(said[0].split(",")) == 100


def killed_recorder(folder: Path) -> Path:
    """A file with 101 answers, whose process was killed and left its log."""
    killed = "import os; ledger.keep('last', ()); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", f"{PROCESS}\n{killed}", str(folder / "l.sqlite"), "a"], check=False)
    assert done.returncode == -9
    return folder / "l.sqlite"


def test_what_a_killed_process_had_recorded_is_there(tmp_path: Path) -> None:
    assert Ledger(killed_recorder(tmp_path), {"name": "e"}).count() == 101


@pytest.mark.parametrize("index", [True, False], ids=["whole", "without the log's index"])
def test_what_a_killed_process_had_recorded_is_replayed_where_nothing_can_be_written_or_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: bool
) -> None:
    path = killed_recorder(tmp_path)
    monkeypatch.setattr("calibadv.kept_answers.os.access", lambda *_: False)
    if index:
        assert Ledger(path, {"name": "e"}, "replay").count() == 101
        return
    (shm := path.with_name("l.sqlite-shm")).unlink()
    shm.symlink_to(tmp_path / "none" / "shm")  # which root too cannot make anew
    with pytest.raises(ValueError, match=r"l\.sqlite-wal beside it, .*, cannot be read .*; copy both to a folder"):
        Ledger(path, {"name": "e"}, "replay")


def test_replay_needs_a_file_with_answers_of_this_engine_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with pytest.raises(ValueError, match=r"l\.sqlite' is not there, and search\.ledger_mode = 'replay' needs one"):
        Ledger(path, ENGINE, "replay")
    assert not path.exists()
    recorded = Ledger(path, ENGINE)
    recorded.keep("oslo", OSLO)
    replayed = Ledger(path, ENGINE, "replay")  # while another process records
    assert replayed.find("oslo") == OSLO
    with pytest.raises(ValueError, match=r'has no answer of this engine, \{"name":"x"\}; it has some of: .*"top_k":3'):
        Ledger(path, {"name": "x"}, "replay")
    replayed.close()
    recorded.close()
    assert Ledger(path, ENGINE, "replay").find("oslo") == OSLO


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_ledger_in_a_folder_that_cannot_be_written_to_is_replayed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", ENGINE)
    ledger.keep("oslo", OSLO)
    ledger.close()
    tmp_path.chmod(0o500)
    try:
        assert Ledger(tmp_path / "l.sqlite", ENGINE, "replay").find("oslo") == OSLO
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_another_host_may_have_is_one_process_s(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    first = Ledger(path, ENGINE, alone=True)
    first.keep("oslo", OSLO)
    assert not path.with_name("l.sqlite-shm").exists()  # nothing in memory that a host has for itself
    with pytest.raises(ValueError, match="another process has it, and it lies on a network file system; give each run"):
        Ledger(path, ENGINE, alone=True)
    first.close()
    assert Ledger(path, ENGINE, alone=True).find("oslo") == OSLO


def test_a_local_disk_is_no_network_file_system(tmp_path: Path) -> None:
    assert not on_network(tmp_path / "l.sqlite")


@pytest.mark.parametrize(
    ("kind", "network"),
    [("nfs4", True), ("fuse.glusterfs", True), ("fuse.ceph-fuse", True), ("fuse.sshfs", True), ("fuse.fuseiso", False)],
)
def test_a_disk_is_known_by_the_type_of_its_mount_also_behind_a_link(tmp_path: Path, kind: str, network: bool) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    shared.mkdir()
    (home / "kept").symlink_to(shared)
    mounts = {Path("/"): "ext4", shared.resolve(): kind}
    assert on_network(shared / "new" / "l.sqlite", mounts) is network
    assert on_network(home / "kept" / "l.sqlite", mounts) is network
    assert not on_network(home / "l.sqlite", mounts)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    theirs = sqlite3.connect(tmp_path / "theirs.sqlite")
    theirs.execute("CREATE TABLE bookmarks (url)")
    theirs.close()
    with pytest.raises(ValueError, match="is another program's database: name another file"):
        Ledger(tmp_path / "theirs.sqlite", ENGINE)
    (tmp_path / "text").write_text("no database, and longer than the header of one would be: " * 5, encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be opened: file is not a database; name another file"):
        Ledger(tmp_path / "text", ENGINE)
    later = sqlite3.connect(tmp_path / "later.sqlite")
    Ledger(tmp_path / "later.sqlite", ENGINE).close()
    later.execute("PRAGMA user_version = 2")
    later.close()
    with pytest.raises(ValueError, match="is of version 2, expected 1"):
        Ledger(tmp_path / "later.sqlite", ENGINE)


LONG = (Document("1", "", "x" * 100_000),)


def give_room(ledger: Ledger, pages: int) -> None:
    ledger._file.execute(f"PRAGMA max_page_count = {pages}")


def test_answers_for_which_the_disk_has_no_room_wait_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", ENGINE)
    give_room(ledger, 10)
    with caplog.at_level(logging.WARNING):
        assert ledger.keep("a", LONG) == ledger.keep("b", LONG) == LONG
    assert ledger.find("a") == LONG
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'l.sqlite'} cannot be written (database or disk is full): its answers wait in memory"
    ]
    assert ledger.count() == 0
    give_room(ledger, 1000)
    ledger.keep("c", ())
    assert ledger.count() == 3


def test_answers_that_wait_are_written_at_the_end_or_it_is_said_how_many_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", ENGINE)
    give_room(ledger, 10)
    ledger.keep("a", LONG)
    give_room(ledger, 1000)
    ledger.close()
    again = Ledger(tmp_path / "l.sqlite", ENGINE)
    assert again.find("a") == LONG
    give_room(again, 10)
    again.keep("b", LONG)
    again.keep("c", LONG)
    caplog.clear()
    again.close()
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'l.sqlite'} cannot be written (database or disk is full): it lacks 2 answers that were given"
    ]
