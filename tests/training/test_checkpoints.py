"""A run's checkpoints around a scripted algorithm: when, which are kept, a full disk, and going on from one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calibadv.checkpoints.folders import open_root
from calibadv.checkpoints.identity import Identity
from calibadv.checkpoints.manifest import FileEntry
from calibadv.checkpoints.progress import Best, Progress
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.config import CheckpointConfig, Config, ConfigError
from calibadv.rllib.lost import LearnersLost
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.target import Target
from calibadv.training.checkpoints import Checkpoints, Snapshots
from calibadv.training.resume import begin_anew, finished_steps, resume_run, storage_of
from tests.build import configured
from tests.training.fake_algorithm import FakeAlgorithm
from tests.training.flaky_store import down, flaky

OVERRIDES = ["--run.steps=40", "--evaluation.every=5"]
DIGESTS = {"train": "a", "test": "b", "corpus": "c", "model": "d"}


def config(*more: str) -> Config:
    return configured(*OVERRIDES, *more)


def identity(settings: Config, **digests: str) -> Identity:
    return Identity(settings.flat(), {**DIGESTS, **digests})


def checkpoints(folder: RunFolder, storage: Storage | None = None, **section: Any) -> Checkpoints:
    settings = CheckpointConfig(**{"every": 10, **section})
    storage = storage or Storage(str(folder.path / "checkpoints"))
    return Checkpoints(settings, identity(config()), folder, Snapshots(storage))


def save(kept: Checkpoints, version: int, best: Best | None = None, needs: tuple[int, ...] = ()) -> bool:
    progress = Progress(version, {0: {"eval/f1": 0.1}}, best=best or kept.best, wall_s=3.0)
    return kept.save(FakeAlgorithm(version), progress, needs)  # type: ignore[arg-type]


def there(kept: Checkpoints, kind: Kind = Kind.CHECKPOINT) -> list[int]:
    return kept.snapshots.storage.versions(kind)


def test_one_is_due_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept, never = checkpoints(folder), checkpoints(folder, every=0)
        assert [v for v in range(1, 26) if kept.due(v, last=v == 25)] == [10, 20, 25]
        assert not any(never.due(v, last=True) for v in range(1, 26))
        assert never.improved(5, 0.9) is None


def test_a_better_evaluation_is_a_new_best_an_equal_one_is_not(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder)
        assert kept.improved(5, 0.0) == Best(5, 0.0)  # the first trained version that was evaluated
        save(kept, 5, Best(5, 0.3))
        assert kept.improved(10, 0.3) is None
        assert kept.improved(10, 0.31) == Best(10, 0.31)
        assert checkpoints(folder, keep_best=False).improved(5, 0.9) is None


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder)
        for version in (5, 10, 20, 30, 40):
            assert save(kept, version, Best(5, 0.4) if version == 5 else None)
        assert there(kept) == [5, 30, 40]
        save(kept, 45, Best(45, 0.5))
        assert there(kept) == [40, 45]


def test_a_kept_checkpoint_keeps_the_snapshots_it_may_go_back_to(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder, keep_last=1)
        for version, needs in ((4, ()), (6, ()), (8, ())):
            kept.snapshots.save(FakeAlgorithm(version), version)  # type: ignore[arg-type]
            save(kept, version, Best(4, 0.4) if version == 4 else None, (version, *needs))
        assert there(kept) == [4, 8]
        assert there(kept, Kind.SNAPSHOT) == [4, 8]


def test_a_full_disk_costs_a_warning_and_the_next_one_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept, algorithm = checkpoints(folder), FakeAlgorithm(20)
        save(kept, 10)
        algorithm.disk_full = True
        assert not kept.save(algorithm, Progress(20, best=Best(20, 0.9)))  # type: ignore[arg-type]
        assert "step-000020 could not be written" in caplog.text
        assert "No space left on device" in kept.failure
        assert (kept.saved, kept.best, there(kept)) == (10, None, [10])
        assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["step-000010"]  # no draft stays
        assert save(kept, 30)
        assert (kept.saved, kept.failure) == (30, "")


def test_an_error_of_the_disk_itself_is_no_crash_either(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder)
        (folder.path / "checkpoints").write_text("a file where the folder should be")
        assert not save(kept, 10)
        assert "step-000010 could not be written to" in kept.failure


@pytest.mark.parametrize(
    "refused", ["ls ", "put_file .*/shared/", "put_file .*/run/", "put_file .*/run/|rm", "pipe_file"]
)
def test_a_store_that_is_down_costs_no_more_than_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refused: str
) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder, flaky())
        save(kept, 10)
        with down(refused):
            assert not save(kept, 20)
        assert "step-000020 could not be written to flaky://" in caplog.text
        assert "503 Service Unavailable" in kept.failure
        newest = kept.snapshots.storage.newest()[0]
        assert (newest.manifest.version if newest else None) == kept.saved == 10
        assert save(kept, 30)
        assert (kept.saved, kept.failure) == (30, "")


def test_what_a_store_does_not_remove_goes_with_the_next_removal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder, flaky(), keep_last=1)
        kept.snapshots.save(FakeAlgorithm(4), 4)  # type: ignore[arg-type]
        save(kept, 10, needs=(4,))
        with down("rm"):
            assert save(kept, 20)
        assert "could not be removed: 503 Service Unavailable" in caplog.text
        assert (there(kept), there(kept, Kind.SNAPSHOT)) == ([10, 20], [4])
        save(kept, 30)
        assert (there(kept), there(kept, Kind.SNAPSHOT)) == ([30], [])


def test_a_lost_learner_is_no_failure_of_the_storage(tmp_path: Path) -> None:
    class Lost(FakeAlgorithm):
        def save_state(self, *_: Any, **__: Any) -> dict[str, FileEntry]:
            raise LearnersLost("learner 0 was lost")

    with RunFolder(tmp_path / "a") as folder, pytest.raises(LearnersLost):
        checkpoints(folder).save(Lost(10), Progress(10))  # type: ignore[arg-type]
    assert list((tmp_path / "a" / "checkpoints").iterdir()) == []


def test_of_two_runs_in_one_place_the_later_one_writes_nothing_over_the_others(tmp_path: Path, uri: str) -> None:
    storage = storage_of(config(f"--checkpoint.uri={uri}", "--run.name=a"), tmp_path / "a")
    with RunFolder(tmp_path / "a") as folder, RunFolder(tmp_path / "other machine") as elsewhere:
        first, second = checkpoints(folder, storage), checkpoints(elsewhere, storage)  # both began before any was there
        assert save(first, 10, Best(10, 0.1))
        assert not save(second, 10, Best(10, 0.9))
        assert "step-000010 is there, which this run did not write" in second.failure
        assert "end one of the two, or give it another --run.name" in second.failure
        assert save(first, 20)
        assert not save(second, 20)
        stored, _ = storage.newest()
        assert stored is not None
        assert Progress.from_json(stored.json("run/progress.json")).best == Best(10, 0.1)


def test_what_learners_still_wrote_after_their_run_was_killed_stops_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder, flaky())
        FakeAlgorithm().save_state(kept.snapshots.storage.draft(Kind.CHECKPOINT, 20), model=True)
        assert save(kept, 10)
        assert save(kept, 20)


# ---- going on ----------------------------------------------------------------------------------------------------


def track(path: Path, run_id: str) -> None:
    Target("calibadv", "a", run_id=run_id).write(path)


def tracked(path: Path) -> str | None:
    target = Target.read(path)
    return target.run_id if target else None


def begun(path: Path, **section: Any) -> Checkpoints:
    """A run that was killed after step 12, with a checkpoint of step 10."""
    with RunFolder(path) as folder:
        kept = checkpoints(folder, **section)
        kept.snapshots.save(FakeAlgorithm(9), 9)  # type: ignore[arg-type]
        for step in (9, 10):
            folder.append_metrics(step, {"reward/f1": step / 100})
        folder.write_predictions([{"id": "of step 0"}], first=True)
        folder.write_predictions([{"id": "of step 10"}])
        track(folder.path, "one")
        save(kept, 10, Best(10, 0.2), needs=(9,))
        folder.append_metrics(11, {"reward/f1": 0.9})
        folder.append_rollouts([])
        folder.write_predictions([{"id": "of step 11"}])
    return kept


def go_on(path: Path, settings: Config, **digests: str) -> Any:
    with RunFolder(path, resume=True) as folder:
        return resume_run(settings, identity(settings, **digests), storage_of(settings, folder.path), folder)


def test_a_run_goes_on_from_its_newest_checkpoint_with_its_record_of_then(tmp_path: Path) -> None:
    begun(tmp_path / "a")
    resumed = go_on(tmp_path / "a", config())
    assert (resumed.progress.version, resumed.progress.best, resumed.progress.wall_s) == (10, Best(10, 0.2), 3.0)
    assert resumed.named == {10: (9,)}
    assert [json.loads(line)["step"] for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()] == [9, 10]
    assert not (tmp_path / "a" / "rollouts.jsonl").exists()
    assert "of step 10" in (tmp_path / "a" / "predictions.jsonl").read_text()
    # Version 10 is due to be evaluated, and was not: the run was stopped in between.
    assert (resumed.start.version, resumed.start.evaluated) == (10, False)


def test_a_lost_folder_comes_back_from_storage_elsewhere(tmp_path: Path) -> None:
    settings = config(f"--checkpoint.uri={tmp_path / 'elsewhere'}", "--run.name=a")
    begun(tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a" / "checkpoints").rename(tmp_path / "elsewhere" / "a")
    shutil.rmtree(tmp_path / "a")
    resumed = go_on(tmp_path / "new-machine", settings)
    assert resumed.progress.version == 10
    assert tracked(tmp_path / "new-machine") == "one"
    assert (tmp_path / "new-machine" / "metrics.jsonl").exists()
    assert "of step 0" in (tmp_path / "new-machine" / "first_predictions.jsonl").read_text()


def test_the_first_evaluation_s_answers_stay_also_where_an_old_checkpoint_lacks_them(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        save(checkpoints(folder), 10)
        folder.write_predictions([{"id": "of step 0"}], first=True)
    assert go_on(tmp_path / "a", config()).progress.version == 10
    assert (tmp_path / "a" / "first_predictions.jsonl").exists()


def test_the_mlflow_run_that_the_folder_knows_wins_over_the_checkpoints(tmp_path: Path) -> None:
    begun(tmp_path / "a")
    track(tmp_path / "a", "later")
    go_on(tmp_path / "a", config())
    assert tracked(tmp_path / "a") == "later"


def test_one_whose_removal_was_cut_short_is_removed_and_stops_nothing(tmp_path: Path, uri: str) -> None:
    settings = config(f"--checkpoint.uri={uri}", "--run.name=a")
    storage = storage_of(settings, tmp_path / "a")
    with RunFolder(tmp_path / "a") as folder:
        kept = checkpoints(folder, storage)
        assert save(kept, 5)
        assert save(kept, 10)
    fs, root = open_root(storage.root)
    fs.rm_file(f"{root}/step-000005/manifest.json")  # what goes first
    assert go_on(tmp_path / "a", settings).named == {10: ()}
    assert storage.versions(Kind.CHECKPOINT) == [10]


def test_later_ones_that_are_not_whole_are_left_as_they_are(tmp_path: Path) -> None:
    kept, places = begun(tmp_path / "a"), tmp_path / "a" / "checkpoints"
    for version in (20, 30):
        save(kept, version, needs=(9,))
    (places / "step-000020" / "model" / "weights.json").write_text("other")
    (places / "step-000030" / "manifest.json").write_text("{}")
    assert go_on(tmp_path / "a", config()).named == {10: (9,)}
    assert there(kept) == [10, 20, 30]


def refused(path: Path, settings: Config, **digests: str) -> str:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}
    with pytest.raises(ConfigError) as caught:
        go_on(path, settings, **digests)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}
    assert after == before  # nothing was put back, or taken away
    return str(caught.value)


def test_another_configuration_or_other_data_are_refused_with_every_difference(tmp_path: Path) -> None:
    begun(tmp_path / "a")
    said = refused(tmp_path / "a", config("--run.seed=4", "--learner.clip=0.3"), corpus="e")
    assert "cannot go on from step 10: run.seed was 0, now 4; learner.clip was 0.2, now 0.3; the corpus files" in said


def test_fewer_steps_than_are_made_are_refused(tmp_path: Path) -> None:
    path, constant = tmp_path / "a", ["--learner.lr=1e-4", "--learner.lr_final=1e-4"]
    begun(path)
    file = path / "checkpoints" / "step-000010" / "run" / "identity.json"
    file.write_text(json.dumps(identity(config(*constant)).to_dict()))
    manifest = path / "checkpoints" / "step-000010" / "manifest.json"
    from calibadv.checkpoints.folders import sealed

    values = json.loads(manifest.read_text())
    entry = sealed(file.parent)["identity.json"]
    values["files"]["run/identity.json"] = {"bytes": entry.bytes, "sha256": entry.sha256}
    manifest.write_text(json.dumps(values))
    assert "has made 10 steps, more than run.steps = 8" in refused(path, config(*constant, "--run.steps=8"))
    assert go_on(path, config(*constant, "--run.steps=80")).progress.version == 10


def test_without_a_whole_checkpoint_it_says_so_and_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun(tmp_path / "a")
    (tmp_path / "a" / "checkpoints" / "step-000010" / "model" / "weights.json").write_text("other")
    said = refused(tmp_path / "a", config())
    assert "nothing to go on from" in said
    assert "start it anew with --run.overwrite true" in said
    assert "step-000010 is passed over: its file model/weights.json is not what was written" in caplog.text


def test_a_new_run_does_not_mix_its_checkpoints_with_another_ones(tmp_path: Path) -> None:
    begun(tmp_path / "a")
    storage = Storage(str(tmp_path / "a" / "checkpoints"))
    with pytest.raises(ConfigError, match=r"holds checkpoints of an earlier run: go on with it by --resume"):
        begin_anew(storage, overwrite=False)
    storage.remove(Kind.CHECKPOINT, [10])
    with pytest.raises(ConfigError, match="of an earlier run"):  # its snapshots alone: it is at its first steps
        begin_anew(storage, overwrite=False)
    begin_anew(storage, overwrite=True)
    assert (storage.versions(Kind.CHECKPOINT), storage.versions(Kind.SNAPSHOT)) == ([], [])


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("", "/runs/mine/checkpoints"),
        ("s3://bucket/all/", "s3://bucket/all/mine"),
        ("/big/disk", "/big/disk/mine"),
    ],
)
def test_checkpoints_of_two_runs_never_share_a_place(uri: str, root: str) -> None:
    assert storage_of(config("--run.name=mine", f"--checkpoint.uri={uri}"), Path("/runs/mine")).root == root


def test_a_uri_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint.uri has credentials in it") as caught:
        config("--checkpoint.uri=s3://key:secret@bucket/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["abfs://runs@account.dfs.core.windows.net/x", "hdfs://user@nn:8020/x", "/a:b@c/x"])
def test_a_user_or_container_in_a_uri_is_no_secret(uri: str) -> None:
    assert config(f"--checkpoint.uri={uri}").checkpoint.uri == uri


def test_a_finished_run_knows_its_steps(tmp_path: Path) -> None:
    assert finished_steps(tmp_path) is None
    (tmp_path / "summary.json").write_text('{"steps": 40}')
    assert finished_steps(tmp_path) == 40
