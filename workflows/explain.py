"""Why a search got its advantage: `workflows/explain.py RUN [--question ID] [--step N] [--method NAME] [--disagree] …`.

Credits the groups that a run has stored again, by the method that trained and by others. With --question every turn's
credit with its arithmetic; without, the methods side by side, and how well silver documents stand for gold passages.
Needs no model and no GPU.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("explain")  # before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workflows.command import command_parser, run_command
from workflows.judge_options import add_judge
from workflows.runs import RUNS, found_run


def main(arguments: Sequence[str] | None = None) -> int:
    """0; ValueError for a run without stored groups, a step, question or method that is not there."""
    asked = _parser().parse_args(arguments)
    with loading():
        from rich.console import Console

        from calibadv.explain.disagreement import figures, most_disputed, searches_of
        from calibadv.explain.judged import judged_of
        from calibadv.explain.page import group_page, judged_table, overview
        from calibadv.explain.replay import credited, methods_for, with_known_gold
        from calibadv.explain.truth import truth_of
        from calibadv.rewards.judge import Endpoint
        from calibadv.tracking.groups import read_groups
    console, run = Console(), found_run(asked.run) or asked.run
    kept = with_known_gold(read_groups(run, asked.step))
    steps = [(stored, credited(stored, methods_for(stored, asked.method))) for stored in kept]
    if asked.question is None:
        groups = [columns for _, by_group in steps for columns in by_group]
        searches = [search for stored, by_group in steps for search in searches_of(stored, by_group)]
        disputed = most_disputed(searches) if asked.disagree else searches
        for part in overview(disputed, figures(searches, groups), truth_of(searches), asked.disagree):
            console.print(part, "")
        if asked.judge:
            documents = {stored.step: stored.documents for stored, _ in steps}
            console.print(judged_table(judged_of(searches, documents, Endpoint(asked.judge, asked.judge_model))), "")
        return 0
    pages = [
        group_page(stored.step, columns, stored.documents)
        for stored, by_group in steps
        for group, columns in zip(stored.groups, by_group, strict=True)
        if group.question.id == asked.question
    ]
    if not pages:
        ids = sorted({group.question.id for stored, _ in steps for group in stored.groups})
        raise ValueError(f"{run} has no stored group of the question {asked.question!r}; it has {', '.join(ids[:8])} …")
    for page in pages:
        console.print(page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, help=f"the folder of a run, or its name in {RUNS}/")
    parser.add_argument("--step", type=int, action="append", default=[], help="only this step; again for more")
    parser.add_argument("--question", metavar="ID", help="show this question's groups, turn by turn")
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME",
        help="beside the one that trained, in place of all: a name or file.py:function; again for more",
    )
    parser.add_argument(
        "--disagree",
        nargs="?",
        type=int,
        const=3,
        default=0,
        metavar="N",
        help="show the N (3) most disputed searches of each kind",
    )
    add_judge(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
