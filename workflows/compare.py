"""Compare methods: `workflows/compare.py STUDY.toml [--report | --dry-run] [--section.key value …]`.

Runs every cell of the study over its seeds, side by side on Ray Tune, then writes its tables and figures below
runs/<study>/. Called again it goes on: finished runs are kept. `--report` only writes tables and figures, of what there
is; `--dry-run` checks every cell, says which of its files are not here, and runs nothing. What a study file holds:
`calibadv/studies/study.py`; an example: `workflows/studies/smoke.toml`.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("compare")  # before what takes seconds to import

import sys
from collections.abc import Sequence

from calibadv.config.command_line import KEYS_TOO, parse
from workflows.command import command_parser, run_command
from workflows.shipped import study_file


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run is done. 1: some run failed. 2: the study was refused, nothing was started. 130: interrupted."""
    parser = command_parser(__doc__, epilog=KEYS_TOO)
    parser.add_argument("study", type=study_file, help="the study's TOML file")
    parser.add_argument("--report", action="store_true", help="only write tables and figures from the runs' folders")
    parser.add_argument("--dry-run", action="store_true", help="check the study, say what it would run, run nothing")
    known, overrides = parse(parser, arguments)
    with loading():
        from rich.console import Console

        from calibadv.studies.dry_run import plan_page
        from calibadv.studies.grid import plan_study
        from calibadv.studies.study import load_study
        from workflows import one_study
    plan = plan_study(load_study(known.study), overrides)
    if known.dry_run:
        Console().print(plan_page(plan))
        return 0
    return one_study.report(plan) if known.report else one_study.compare(plan, known.study)


if __name__ == "__main__":
    sys.exit(run_command(main))
