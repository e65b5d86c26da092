"""A disk that really is full: a small tmpfs, where this process may mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from calibadv.checkpoints.folders import Draft, Stored
from calibadv.checkpoints.identity import Identity
from calibadv.checkpoints.manifest import FileEntry
from calibadv.checkpoints.progress import Progress
from calibadv.checkpoints.storage import Kind
from calibadv.config import load_config
from calibadv.tracking.run_folder import RunFolder, read_history
from calibadv.training.checkpoints import Checkpoints, Snapshots
from calibadv.training.resume import storage_of
from tests.training.fake_algorithm import FakeAlgorithm

DISK_BYTES = 4 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(
            f"no tmpfs can be mounted here ({error}): the full disk of test_training_run.py is injected instead"
        )
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


class Large(FakeAlgorithm):
    """A checkpoint takes a third of the disk."""

    def save_state(self, draft: Draft, *, model: bool) -> dict[str, FileEntry]:
        def write(folder: Path) -> None:
            (folder / "weights.bin").write_bytes(bytes(DISK_BYTES // 3))

        return super().save_state(draft, model=model) | draft.add("rank-0", write)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def newest(kept: Checkpoints) -> Stored | None:
    return kept.snapshots.storage.newest()[0]


def test_a_checkpoint_that_does_not_fit_is_not_there_and_the_older_one_is_picked(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(None, {"checkpoint.every": 1, "run.folder": small_disk, "run.name": "a"})
    with RunFolder(small_disk / "a") as folder:
        storage = storage_of(config, folder.path)
        storage.prepare()
        kept = Checkpoints(config.checkpoint, Identity({}, {}), folder, Snapshots(storage))
        assert kept.save(Large(1), Progress(1))
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(DISK_BYTES // 2))  # somebody else's
        assert not kept.save(Large(2), Progress(2))
        assert "No space left on device" in caplog.text
        assert "it is tried again when the next one is due" in caplog.text
        assert storage.versions(Kind.CHECKPOINT) == [1]
        assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["step-000001"]
        stored = newest(kept)
        assert stored is not None
        assert stored.manifest.version == 1
        ballast.unlink()
        assert kept.save(Large(3), Progress(3))
        assert storage.versions(Kind.CHECKPOINT) == [1, 3]


def test_the_record_of_a_run_is_neither_torn_nor_short_of_a_line(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder(small_disk / "a") as folder:
        folder.append_metrics(1, {"reward/mean": 0.1})
        ballast = small_disk / "ballast"
        fill(ballast)
        many = {f"m/{number}": 0.5 for number in range(1000)}  # more than what is left of the file's last page
        for step in (2, 3):
            folder.append_metrics(step, many)
        folder.write_predictions([{"id": "q", "answer": "a" * 5000}])
        assert caplog.text.count("metrics.jsonl cannot be written") == 1
        assert "predictions.jsonl cannot be written" in caplog.text
        assert [line["step"] for line in folder.history()] == [1, 2, 3]
        assert [line["step"] for line in read_history(folder.metrics)] == [1]
        assert (folder.content("metrics.jsonl") or b"").count(b"\n") == 3  # what a checkpoint elsewhere keeps
        ballast.unlink()
        folder.append_metrics(4, many)
        assert "is written again, with all lines that waited" in caplog.text
    assert [line["step"] for line in read_history(small_disk / "a" / "metrics.jsonl")] == [1, 2, 3, 4]
