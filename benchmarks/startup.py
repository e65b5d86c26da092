"""What `train.py` takes before it does anything: CPU seconds of `--help` and of `--dry-run`, with warm bytecode."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.lines import Line, at_most, least_of, run

TRAIN = Path(__file__).parents[1] / "workflows" / "train.py"
ROUNDS = 4  # the first of them warms the bytecode


def measure() -> list[Line]:
    """Two lines, each the least of the rounds."""
    shown, planned = least_of(ROUNDS, [partial(_train, "--help"), partial(_train, "--dry-run")], _children_cpu_s)
    return [
        at_most("`train.py --help`, CPU", shown, 1, " s"),
        at_most("`train.py --dry-run`, CPU: the plan, and all input read and checked", planned, 2, " s"),
    ]


def _train(option: str) -> None:
    subprocess.run([sys.executable, str(TRAIN), option], check=True, capture_output=True)


def _children_cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
