"""All that can be measured on this machine: `python -m benchmarks [NAME …]`, or `make bench [ARGS=NAME]`.

Each benchmark runs in a process of its own, one after the other; its lines go to `measured.json` and into the table of
docs/performance.md, where those of the others stay as they are.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("benchmarks")  # before what takes seconds to import

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.lines import Line, keep, load, machine, merged, table
from workflows.command import run_command

log = logging.getLogger("benchmarks")

BENCHMARKS = ("startup", "credit", "dealing", "packing", "rollouts", "lockstep", "retrieval_http", "trl", "whole_run")


def main(
    arguments: Sequence[str] | None = None,
    measure: Callable[[str], list[Line]] | None = None,
    write: Callable[[list[Line]], None] = keep,
) -> int:
    """0: all were measured. 1: one of them failed; the others are written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    asked = parser.parse_args(arguments).names or BENCHMARKS
    if unknown := set(asked) - set(BENCHMARKS):
        raise ValueError(f"no benchmark is called {sorted(unknown)}: there are {', '.join(BENCHMARKS)}")
    failed, here = 0, machine()
    for name in asked:
        log.info("%s …", name)
        try:
            measured = (measure or in_a_process)(name)
        except subprocess.CalledProcessError as error:
            log.error("%s ended with exit code %d: what it said is above", name, error.returncode)
            failed = 1
            continue
        write(merged(load(), [replace(line, benchmark=name, machine=here) for line in measured]))
    sys.stdout.write(table(load()))
    return failed


def in_a_process(name: str) -> list[Line]:
    """The lines of `benchmarks/<name>.py`, whose peak of memory is so its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    last = made.stdout.rstrip("\n").rpartition("\n")[2]  # libraries may have said something before
    return [Line(**line) for line in json.loads(last)]


if __name__ == "__main__":
    sys.exit(run_command(main))
