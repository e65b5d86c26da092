"""A run folder keeps one run, and says how to go on when it already holds one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.run_folder import RunFolder, RunFolderError, read_history
from calibadv.tracking.target import Target
from tests.tracking.fake_run import record


def finished(path: Path) -> Path:
    with RunFolder(path) as folder:
        folder.append_metrics(1, {"reward/mean": 0.5})
        folder.write_summary({"f1": 0.5})
    return path


def test_metrics_lines_are_readable_at_once_and_hold_no_nan(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        folder.append_metrics(1, {"reward/mean": 0.5, "policy/ppl": math.nan, "x": math.inf, "step": 9})
        assert folder.metrics.read_text() == '{"step": 1, "reward/mean": 0.5}\n'
        assert folder.history() == [{"step": 1, "reward/mean": 0.5}]


def test_rollouts_are_one_json_object_a_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        folder.append_rollouts([record(1), record(2)])
        lines = folder.rollouts.read_text().splitlines()
    assert [RolloutRecord.from_dict(json.loads(line)) for line in lines] == [record(1), record(2)]


def test_a_finished_run_is_refused_with_both_remedies(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    with pytest.raises(RunFolderError, match=r"finished run.*--run.name.*--run.overwrite true"):
        RunFolder(tmp_path / "a")
    with pytest.raises(RunFolderError):  # and the refusal left no lock behind
        RunFolder(tmp_path / "a")


def test_an_unfinished_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as folder:
        folder.append_metrics(1, {"x": 1})
    with pytest.raises(RunFolderError, match=r"not finished: go on with it by the same command with --resume"):
        RunFolder(tmp_path / "a")
    with RunFolder(tmp_path / "a", resume=True) as folder:
        folder.append_metrics(2, {"x": 2})
        assert [row["x"] for row in folder.history()] == [1, 2]


def test_overwrite_empties_a_run_but_no_other_folder(tmp_path: Path) -> None:
    with RunFolder(finished(tmp_path / "a"), overwrite=True) as folder:
        assert not folder.metrics.exists()
        assert not folder.summary.exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="it is no run"):
        RunFolder(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_what_a_start_that_failed_early_leaves_may_be_overwritten(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a").close()
    RunFolder(tmp_path / "a", overwrite=True).close()
    for name in ("plots", "checkpoints"):  # made for what was never drawn or saved
        (tmp_path / "a" / name).mkdir()
    for name in ("output.log", "mlflow.json", "mlflow.jsonl"):
        (tmp_path / "a" / name).write_text("{}\n")
    RunFolder(tmp_path / "a", overwrite=True).close()
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock"]
    for name in ("output.log", "thesis.tex"):  # a name that others use too says nothing of what lies beside it
        (tmp_path / "a" / name).write_text("years of work")
    with pytest.raises(RunFolderError, match="it is no run"):
        RunFolder(tmp_path / "a", overwrite=True)


def test_two_runs_cannot_share_a_folder_not_even_with_overwrite(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a"), pytest.raises(RunFolderError, match=r"written by process \d+"):
        RunFolder(tmp_path / "a", overwrite=True)


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from calibadv.tracking.run_folder import RunFolder
folder = RunFolder(Path({str(tmp_path / "a")!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    RunFolder(tmp_path / "a").close()


def test_a_line_cut_by_a_crash_is_skipped_and_a_repeated_step_takes_the_later_values(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "x": 1}\n{"step": 1, "x": 5}\n{"step": 2, "x": 3}\n{"step": 3, "x"')
    assert read_history(path) == [{"step": 1, "x": 5}, {"step": 2, "x": 3}]


def test_going_back_puts_files_back_and_takes_away_what_there_was_not(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    with RunFolder(tmp_path / "a", resume=True) as folder:
        assert folder.summary.exists()  # a run that is refused later stays as it was
        before = folder.metrics.read_bytes()
        folder.append_metrics(2, {"reward/mean": 0.75})
        folder.append_rollouts([record(1)])
        folder.restore({"metrics.jsonl": before, "rollouts.jsonl": None, "predictions.jsonl": b"{}"}, 1)
        assert folder.history() == [{"step": 1, "reward/mean": 0.5}]
        assert not folder.rollouts.exists()
        assert folder.predictions.read_bytes() == b"{}"
        assert not folder.summary.exists()


def test_going_back_takes_back_how_far_the_files_were_delivered(tmp_path: Path) -> None:
    delivered = {"metrics.jsonl": 44, "rollouts.jsonl": 9, "mlflow.jsonl": 40}
    Target("e", "a", run_id="r", offsets=delivered).write(tmp_path)
    with RunFolder(tmp_path, resume=True) as folder:
        for step in (1, 2):
            folder.append_metrics(step, {"x": 0.5})  # 22 bytes
        folder.restore({"metrics.jsonl": b'{"step": 1, "x": 0.5}\n', "rollouts.jsonl": None}, 1)
    target = Target.read(tmp_path)
    assert target is not None
    assert (target.run_id, target.offsets) == ("r", {"metrics.jsonl": 22, "rollouts.jsonl": 0, "mlflow.jsonl": 0})
