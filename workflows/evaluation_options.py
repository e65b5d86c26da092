"""The command line of an evaluation: models, question sets, corpus, and overrides of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.config import POCKET
from calibadv.config.command_line import KEYS_TOO, parse
from calibadv.evaluation.models import check_name
from calibadv.evaluation.plan import Command
from workflows.command import command_parser
from workflows.shipped import RECIPES, recipe_file

# What a run learns from and how: an evaluation has its own flags for these, or no use for them.
_NO_USE = {
    "data": "questions come from --set NAME=FILE, their number from --questions, documents from --corpus FILE",
    "model.path": "models are named without a flag: evaluate.py MODEL …",
    "learner": "an evaluation learns nothing",
    "evaluation": "an evaluation asks every question of every set",
    "sentinel": "an evaluation learns nothing",
}
_COLUMNS = ("model", "mean")


def parse_command(arguments: Sequence[str], description: str | None = None) -> Command:
    """The command of the arguments. ValueError for a set or an override that cannot be; argparse exits for the rest."""
    parser = command_parser(description, epilog=KEYS_TOO)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a run's folder, a model's folder or a hub name")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=FILE", help="a benchmark; repeatable")
    parser.add_argument("--corpus", required=True, help="the documents to search: a file or a prepared store")
    parser.add_argument("--config", type=recipe_file, help="a recipe; needed for a model that none of our runs made")
    parser.add_argument("--out", type=Path, help="where answers and tables are kept (default: runs/evaluation)")
    parser.add_argument("--questions", type=int, help="only the first of each set (default: all)")
    known, overrides = parse(parser, arguments, intermixed=True)
    if known.questions is not None and known.questions < 1:
        raise ValueError(f"--questions is {known.questions}: expected at least 1")
    for key in overrides:
        _check_useful(key)
    return Command(
        models=tuple(known.models),
        sets=_sets(known.set),
        corpus=known.corpus,
        recipe=known.config,
        out=known.out,
        questions=known.questions,
        overrides=overrides,
        pocket=RECIPES / "pocket.toml",
    )


def _check_useful(key: str) -> None:
    for useless, instead in _NO_USE.items():
        if key == useless or key.startswith(f"{useless}."):
            raise ValueError(f"--{key} means nothing here: {instead}")


def _sets(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    sets: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not (equals and file):
            raise ValueError(
                f"--set {text!r}: expected NAME=FILE, e.g. musique=data/musique.parquet or pocket={POCKET}"
            )
        if check_name(name, "--set") in _COLUMNS:
            raise ValueError(f"--set {name}: the table has a column of that name already; choose another")
        if name in sets:
            raise ValueError(
                f"--set {name} is given twice, {sets[name]!r} and {file!r}: a name is one column of the table"
            )
        sets[name] = file
    return tuple(sets.items())
