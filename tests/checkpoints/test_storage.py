"""A checkpoint's folder is whole or does not count: on a local folder and on an object store alike."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.checkpoints.folders import Draft, Stored, open_root
from calibadv.checkpoints.manifest import MANIFEST, Damaged, FileEntry, Manifest
from calibadv.checkpoints.storage import Kind, Storage, folder_name, superseded, unneeded

STEP, SNAPSHOT = Kind.CHECKPOINT, Kind.SNAPSHOT


@pytest.fixture(params=["folder", "50% a::b #c? [d]*", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    root = str(tmp_path / request.param) if request.param != "memory" else f"memory://{uuid.uuid4().hex}/run"
    storage = Storage(root)
    storage.prepare()
    yield storage
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


def text(content: str) -> Any:
    return lambda folder: (folder / "state.json").write_text(content)


def write(storage: Storage, version: int, content: str = "1", kind: Kind = STEP, needs: tuple[int, ...] = ()) -> Stored:
    draft = storage.draft(kind, version)
    files = {**draft.add("shared", text(content)), **draft.add("rank-0", text('"rank"'))}
    return draft.commit(Manifest(version, 1, files, needs))


def path_of(storage: Storage, file: str) -> tuple[Any, str]:
    fs, root = open_root(storage.root)
    return fs, f"{root}/{file}"


def test_what_was_committed_is_read_again(storage: Storage) -> None:
    write(storage, 10, '{"weights": 3}', needs=())
    stored, skipped = storage.newest()
    assert stored is not None
    assert skipped == []
    assert stored.name == "step-000010"
    assert stored.json("shared/state.json") == {"weights": 3}
    assert stored.reader("rank-0")("state.json") == b'"rank"'
    assert stored.has("shared/state.json")
    assert not stored.has("rank-1/state.json")
    assert set(stored.manifest.files) == {"shared/state.json", "rank-0/state.json"}


@pytest.mark.parametrize("content", ["{", "1" * 5000, "[" * 100_000], ids=["torn", "a long number", "nested lists"])
def test_a_file_that_is_no_json_is_damaged(storage: Storage, content: str) -> None:
    with pytest.raises(Damaged, match=r"shared/state\.json is not JSON"):
        write(storage, 10, content).json("shared/state.json")


def test_a_draft_is_never_picked_and_is_swept_away(storage: Storage) -> None:
    write(storage, 10)
    draft = storage.draft(STEP, 20)
    draft.add("shared", text("half"))
    stored, _ = storage.newest()
    assert stored is not None
    assert stored.manifest.version == 10
    storage.prepare()
    draft.abandon()
    assert storage.versions(STEP) == [10]


def test_an_older_folder_of_the_same_version_is_replaced(storage: Storage) -> None:
    write(storage, 10, "1")
    write(storage, 10, "2")
    stored, _ = storage.newest()
    assert stored is not None
    assert stored.json("shared/state.json") == 2
    assert storage.versions(STEP) == [10]


def spoilt(storage: Storage, file: str, content: bytes | None) -> None:
    fs, path = path_of(storage, file)
    if content is None:
        fs.rm_file(path)
    else:
        fs.pipe_file(path, content)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (MANIFEST, None, "it has no manifest.json: it was never finished"),
        (MANIFEST, b"{", "its manifest.json cannot be used"),
        (MANIFEST, b'{"format": 2}', "it is not of format 1"),
        ("shared/state.json", None, "its file shared/state.json is missing"),
        ("shared/state.json", b"2", "its file shared/state.json is not what was written"),
    ],
)
def test_the_newest_whole_one_is_picked_and_the_others_are_named(
    storage: Storage, file: str, content: bytes | None, words: str
) -> None:
    write(storage, 10)
    write(storage, 20)
    spoilt(storage, f"step-000020/{file}", content)
    stored, (skipped,) = storage.newest()
    assert stored is not None
    assert stored.manifest.version == 10
    assert skipped.startswith(f"{storage.root}/step-000020 is passed over: ")
    assert words in skipped


def test_a_checkpoint_without_a_snapshot_that_it_needs_is_passed_over(storage: Storage) -> None:
    write(storage, 4, kind=SNAPSHOT)
    write(storage, 10, needs=(4,))
    assert storage.newest()[1] == []
    storage.remove(SNAPSHOT, [4])
    stored, (skipped,) = storage.newest()
    assert stored is None
    assert "it needs snapshot-000004: it has no manifest.json" in skipped


def test_a_file_is_checked_again_when_it_is_read(storage: Storage) -> None:
    stored = write(storage, 10)
    spoilt(storage, "step-000010/shared/state.json", b"2")
    with pytest.raises(Damaged, match=r"step-000010/shared/state.json is not what was written"):
        stored.read("shared/state.json")
    with pytest.raises(Damaged, match=r"holds no file \.\./secret"):
        stored.read("../secret")


@pytest.mark.parametrize("name", ["../other/file", "/etc/passwd", "a\\..\\b", "shared/../../x"])
def test_a_manifest_that_names_a_file_outside_is_refused(name: str) -> None:
    whole = Manifest(1, 1, {name: FileEntry(1, "0")}).dumps()
    with pytest.raises(Damaged, match="which is not in the folder"):
        Manifest.loads(whole)


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda t: st.lists(t) | st.dictionaries(st.text(), t))
)
def test_no_json_but_a_manifest_is_one(value: Any) -> None:
    with pytest.raises(Damaged):
        Manifest.loads(json.dumps(value))


def test_a_file_that_only_the_learners_node_has_is_an_error_with_a_remedy(storage: Storage) -> None:
    draft = storage.draft(STEP, 10)
    files = draft.add("rank-1", text("1"))
    spoilt(storage, f"{'.draft-' if storage.root.startswith('/') else ''}step-000010/rank-1/state.json", None)
    with pytest.raises(ValueError, match=r"a learner wrote rank-1/state.json .* is not there: set checkpoint.uri"):
        draft.commit(Manifest(10, 2, files))
    assert storage.newest()[0] is None


def test_a_learner_that_does_not_see_the_driver_s_draft_has_the_remedy_too(tmp_path: Path) -> None:
    draft = Draft(str(tmp_path / "of-another-node"), "step-000010")
    with pytest.raises(ValueError, match=r"\.draft-step-000010, which the driver has made, .*: set checkpoint.uri to"):
        draft.add("rank-1", text("1"))
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within it no file of this process may grow beyond so many bytes, as on a disk that is full."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_an_older_one_survives_a_full_disk(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "run"))
    storage.prepare()
    write(storage, 10, "1")
    with room_for(20), pytest.raises(OSError, match="File too large"):  # for the parts, not for the manifest
        write(storage, 10, "2")
    stored, _ = storage.newest()
    assert stored is not None
    assert stored.json("shared/state.json") == 1


def test_a_folder_whose_removal_was_cut_short_does_not_count(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "run"))
    stored = write(storage, 10)
    (tmp_path / "run" / stored.name / MANIFEST).unlink()  # what goes first
    assert storage.newest()[0] is None


def test_a_place_that_cannot_be_written_says_so_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"checkpoints cannot be written to .*file/run .*set checkpoint.uri"):
        Storage(str(tmp_path / "file" / "run")).prepare()
    with pytest.raises(ValueError, match="cannot be written to nowhere://bucket"):
        Storage("nowhere://bucket").prepare()


def test_other_folders_beside_checkpoints_are_left_alone(storage: Storage) -> None:
    write(storage, 10)
    write(storage, 4, kind=SNAPSHOT)
    fs, path = path_of(storage, "step-ten")
    fs.makedirs(path)
    fs.pipe_file(f"{path}/note.txt", b"mine")
    assert (storage.versions(STEP), storage.versions(SNAPSHOT)) == ([10], [4])
    storage.clear()
    assert (storage.versions(STEP), storage.versions(SNAPSHOT)) == ([], [])
    assert fs.cat_file(f"{path}/note.txt") == b"mine"


def test_a_draft_travels_to_a_learner(tmp_path: Path) -> None:
    import pickle

    storage = Storage(str(tmp_path))
    draft: Draft = pickle.loads(pickle.dumps(storage.draft(STEP, 10)))
    files = draft.add("rank-1", text("1"))
    assert set(files) == {"rank-1/state.json"}
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("versions", "keep_last", "best", "gone"),
    [
        ([10, 20, 30], 2, None, [10]),
        ([10, 20, 30], 2, 10, []),
        ([10, 20, 30], 1, 10, [20]),
        ([10, 20, 30], 1, 30, [10, 20]),
        ([10], 1, None, []),
        ([], 2, None, []),
    ],
)
def test_retention_keeps_the_last_and_the_best(
    versions: list[int], keep_last: int, best: int | None, gone: list[int]
) -> None:
    assert superseded(versions, keep_last=keep_last, best=best) == gone


def test_snapshots_are_needed_by_the_sentinel_and_by_kept_checkpoints() -> None:
    assert unneeded([2, 4, 6, 8], {8}, (4,), (4, 6)) == [2]


def test_names_sort_as_versions_do() -> None:
    assert folder_name(STEP, 9) < folder_name(STEP, 10) < folder_name(STEP, 1234)
