"""One laboratory run in a folder: resumable, equal bit by bit however often it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from calibadv.files import whole_file, write_text
from calibadv.json_lines import json_line, read_json_lines
from calibadv.lab.laboratory import Laboratory, Metrics
from calibadv.lab.settings import LabRun
from calibadv.tracking.folder_lock import FolderLock

CHECKPOINT_EVERY = 20  # steps
METRICS, SETTINGS, STATE, DONE = "metrics.jsonl", "settings.json", "state.pt", "done.json"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    steps: int
    reason: str  # "complete", or "zeros": no reward for so long that nothing was left to learn from
    cpu_seconds: float


def run_in(
    folder: Path,
    run: LabRun,
    tell: Callable[[Metrics], None] = lambda _: None,
    *,
    checkpoint_every: int = CHECKPOINT_EVERY,
) -> Ended:
    """Makes the run in `folder`, or goes on where its newest checkpoint is; a finished one is only read.

    ValueError where the folder holds a run of other settings, and where another process makes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder, "wait for it, or end it")
    try:
        return _made(folder, run, tell, checkpoint_every)
    finally:
        lock.close()


def _made(folder: Path, run: LabRun, tell: Callable[[Metrics], None], checkpoint_every: int) -> Ended:
    settings = run.model_dump_json(indent=1)
    written = folder / SETTINGS
    if written.exists() and LabRun.stored(written.read_text("utf-8")) != run:
        raise ValueError(f"{folder} holds a run of other settings: name the cell or the study anew, or remove it")
    write_text(written, settings)
    if (folder / DONE).exists():
        return Ended(**json.loads((folder / DONE).read_text("utf-8")))
    lab = Laboratory(run)
    rows = _resumed(folder, lab)
    cpu = rows[-1]["time/run_cpu_s"] if rows else 0.0
    before = time.process_time() - cpu
    reason = "complete"
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        for number in range(len(rows) + 1, run.steps + 1):
            rows.append(row := lab.step(number))
            last = [r["reward/mean"] for r in rows[-run.stop_after_zeros :]]
            hopeless = len(last) == run.stop_after_zeros and not any(last)
            if hopeless or number == run.steps or number % run.evaluate_every == 0:
                row |= lab.evaluate()
            row["time/run_cpu_s"] = time.process_time() - before
            file.write(json_line(row))
            file.flush()
            tell(row)
            if hopeless:
                reason = "zeros"
                break
            if number % checkpoint_every == 0:
                _save(folder / STATE, {"step": number, "lab": lab.state()})
    ended = Ended(len(rows), reason, round(time.process_time() - before, 1))
    write_text(folder / DONE, json.dumps(asdict(ended)))
    (folder / STATE).unlink(missing_ok=True)
    return ended


def read_metrics(folder: Path) -> list[Metrics]:
    """The rows of a run's metrics, one a step; a line that a crash has torn is no row."""
    return read_json_lines(folder / METRICS)


def _resumed(folder: Path, lab: Laboratory) -> list[Metrics]:
    """Rows up to the newest checkpoint, which the laboratory takes up; later ones are cut off, to be made again."""
    state = folder / STATE
    rows: list[Metrics] = []
    if state.exists():
        saved = torch.load(state, weights_only=True)
        lab.load(saved["lab"])
        rows = read_metrics(folder)[: saved["step"]]
        assert len(rows) == saved["step"], f"{folder / METRICS} is shorter than its checkpoint"
    write_text(folder / METRICS, "".join(map(json_line, rows)))
    return rows


def _save(path: Path, state: dict[str, Any]) -> None:
    with whole_file(path) as draft:
        torch.save(state, draft)
