"""The options of commands that ask a judge about stored searches."""

from __future__ import annotations

import argparse


def add_judge(parser: argparse.ArgumentParser) -> None:
    """Adds --judge and --judge-model."""
    parser.add_argument(
        "--judge",
        metavar="URL",
        default="",
        help="ask this OpenAI-compatible API about searches with c > 0.5, 20 in each of five parts of the training "
        "(CalibAdv sec. 4.5); its key is $JUDGE_API_KEY",
    )
    parser.add_argument("--judge-model", metavar="NAME", default="", help="under which it serves the judge")
