"""Runs the cases one after the other, each a training run of its own, and keeps what was measured of each."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.scaling_cases import CASES, RECIPE, Case, measured, settings_of
from calibadv.config.command_line import flags
from calibadv.files import write_text
from calibadv.json_lines import read_json_lines

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
LEARNER = "_WrappedExecutable"  # what Ray calls a learner's process: Ray Train's wrapper of RLlib's class


def run_case(case: Case, given: Mapping[str, Any], folder: Path, limit_s: float) -> dict[str, Any]:
    """One training run, in a process of its own; its output goes to a log beside its result."""
    log = folder / f"{case.name}.log"
    settings = {**given, "run.folder": folder / "runs", "run.name": case.name, "run.overwrite": True}
    command = [sys.executable, str(ROOT / "workflows" / "train.py"), "--config", str(RECIPE), *flags(settings)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
        with ended(process), learner_peaks(process.pid) as peaks:
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                raise ValueError(f"{case.name} took more than {limit_s:g} s: see {log}, or raise --limit-s") from None
    if code:
        raise ValueError(f"{case.name} ended with exit code {code}: see {log}")
    return measured(case, given, read_json_lines(folder / "runs" / case.name / "metrics.jsonl"), list(peaks.values()))


def measure(
    folder: Path,
    *,
    steps: int,
    questions: int,
    limit_s: float,
    cases: Sequence[Case] = CASES,
    run: Callable[[Case, Mapping[str, Any], Path, float], dict[str, Any]] = run_case,
) -> list[dict[str, Any]]:
    """What was measured of each case, in order. A case whose file is there with the same settings is not run again.

    A case that fails or takes longer than `limit_s` raises ValueError; those before it are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for case in cases:
        given = settings_of(case, steps=steps, questions=questions)
        file = folder / f"{case.name}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if kept.get("settings") != given:
            logger.info("%s: %d steps", case.name, steps)
            kept = run(case, given, folder.absolute(), limit_s) | {"machine": machine()}
            write_text(file, json.dumps(kept, indent=1) + "\n")
        results.append(kept)
    return results


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the run with its body: politely, so that it takes its own Ray down, and at last by force."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def learner_peaks(pid: int, poll_s: float = 1.0) -> Iterator[dict[int, int]]:
    """Bytes of the largest resident memory of each learner below process `pid` so far, by its id.

    The kernel keeps that peak itself (VmHWM), so that looking now and then misses only the last moments. Empty where
    there is no /proc.
    """
    peaks: dict[int, int] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(poll_s):
            with suppress(psutil.Error):
                for child in psutil.Process(pid).children(recursive=True):
                    with suppress(psutil.Error, OSError):
                        if LEARNER in " ".join(child.cmdline()):
                            peaks[child.pid] = resident_peak(Path(f"/proc/{child.pid}/status").read_text("utf-8"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def resident_peak(status: str) -> int:
    """Bytes of VmHWM in the text of a /proc/<pid>/status; 0 for a process that has ended."""
    found = next((line for line in status.split("\n") if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return 1024 * int(found.split()[1])


def machine() -> dict[str, Any]:
    """What a reader must know of the machine: seconds are its own, and other work on it makes them longer."""
    return {"cores": os.cpu_count(), "load_1_min_after": os.getloadavg()[0], "platform": platform.platform()}
