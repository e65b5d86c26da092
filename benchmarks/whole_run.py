"""A whole `make train` after its set-up, beside the same of this project as it was on 2026-11-22 (commit `THEN`).

Wall time, each once, one after the other, each in an empty folder, so that nothing is in a cache: run it on a machine
that does nothing else. The older source is taken from the repository's own history and runs with today's packages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.lines import Line, at_most, run
from calibadv.json_lines import read_json_lines

HERE = Path(__file__).parents[1]
THEN = "512cbd2"


def measure() -> list[Line]:
    """One line."""
    with older(THEN) as tree:
        then_s, then_f1 = trained(tree)
    now_s, now_f1 = trained(HERE)
    more = f" ({now_s:.0f} and {then_s:.0f} s; held-out F1 {now_f1:.3f} and {then_f1:.3f})"
    return [at_most(f"`make train` after set-up, against commit {THEN}", now_s / then_s, 0.5, " x", more)]


@contextmanager
def older(commit: str) -> Iterator[Path]:
    """The source at a commit. `subprocess.CalledProcessError` where the history lacks it, as a shallow clone does."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "then"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True, stdout=sys.stderr)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def trained(tree: Path) -> tuple[float, float]:
    """(seconds, held-out F1 of the last version) of `workflows/train.py` of a source tree, as it is by itself."""
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.perf_counter()
        subprocess.run(
            [sys.executable, str(tree / "workflows" / "train.py")],
            check=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdout=sys.stderr,
        )
        took_s = time.perf_counter() - started_s
        (metrics,) = Path(folder).glob("runs/*/metrics.jsonl")
        return took_s, float([row["eval/f1"] for row in read_json_lines(metrics) if "eval/f1" in row][-1])


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
