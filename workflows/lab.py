"""The laboratory: `python workflows/lab.py STUDY.toml [--jobs 2] [--folder runs/lab]`.

Makes every run of the study that is not finished yet, on the CPU, minutes each; called again it goes on where it
stopped. What a study file holds: `calibadv/lab/study.py`; examples: `workflows/studies/lab-*.toml`.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("lab")  # before what takes seconds to import

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from calibadv.lab.study import load_study, run_study, unfinished
from calibadv.lab.warm_start import make_start
from workflows.command import run_command

log = logging.getLogger("workflows.lab")


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run ended. 1: some run failed. 2: the study was refused. 130: interrupted."""
    parser = argparse.ArgumentParser(
        prog="lab.py", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="the study's TOML file")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each (default 2)")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="where studies are kept")
    parser.add_argument("--make-start", type=Path, metavar="FILE", help="make the policy that runs start from, again")
    given = parser.parse_args(arguments)
    if given.make_start:
        make_start(given.make_start, lambda update, loss: log.info("update %d: %.3f nats a token", update, loss))
        return 0
    if given.study is None:
        parser.error("a study file is needed, e.g. workflows/studies/lab-mismatch.toml")
    study = load_study(given.study)
    folder = given.folder / study.name
    left, failed = len(unfinished(study, folder)), 0
    log.info("%s: %d of %d runs are left; %s", study.name, left, len(study.runs), folder)
    for number, made in enumerate(run_study(study, folder, jobs=given.jobs), start=1):
        if made.error:
            failed += 1
            log.error("%s: %s", made.planned.folder, made.error)
        else:
            log.info(
                "%d of %d  %s  %d steps (%s), %.0f CPU seconds",
                number,
                len(study.runs),
                made.planned.folder,
                made.steps,
                made.reason,
                made.cpu_seconds,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
