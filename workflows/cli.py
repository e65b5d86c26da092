"""The installed command, `calibadv COMMAND …`: `calibadv train` is `python workflows/train.py`, and so on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

from calibadv.nearest import did_you_mean
from calibadv.tracking.starting import say_starting


class Command(NamedTuple):
    """A file of this folder, which has a `main`, and what it does."""

    module: str
    does: str


COMMANDS = {
    "init": Command("init", "write a folder of your own that trains at once: recipe, data, reward, search"),
    "train": Command("train", "train a search agent; without arguments the pocket world on this machine"),
    "compare": Command("compare", "train several methods over several seeds, and write tables and figures"),
    "evaluate": Command("evaluate", "answer question sets with one or more models, and write a table"),
    "serve": Command("serve_agent", "let a trained agent answer: a page, and OpenAI's API with citations"),
    "data": Command("prepare_data", "turn questions and corpora of known formats into what a run reads"),
    "index": Command("build_index", "embed a corpus and build its index"),
    "warm-start": Command("warm_start", "teach a policy the format before RL"),
    "doctor": Command("doctor", "check this machine before a long run"),
    "explain": Command("explain", "why a search got its advantage, and what other methods would have said"),
    "report": Command("report", "one page a run or over several, a file that needs no server"),
    "lab": Command("lab", "make the laboratory's runs of a study, minutes each on a core"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command that the first argument names; 2 where it names none. 0 for --help and --version."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = (given[0], given[1:]) if given else ("--help", [])
    if name in COMMANDS:
        sys.argv = [f"calibadv {name}", *rest]  # what the command's parser reads, and calls itself
        say_starting(name)  # before what takes seconds to import
        from workflows import command

        return command.run_command(import_module(f"workflows.{COMMANDS[name].module}").main)
    if name in ("-V", "--version"):
        print(f"calibadv {version('calibadv')}")  # noqa: T201
        return 0
    if name in ("-h", "--help"):
        print(usage())  # noqa: T201
        return 0
    said = f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; there are {', '.join(COMMANDS)}"
    print(f"error: {said}", file=sys.stderr)  # noqa: T201
    return 2


def usage() -> str:
    """Every command, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: calibadv COMMAND …",
            "",
            "Train, compare, evaluate and prepare search agents.",
            "",
            *lines,
            "",
            "`calibadv COMMAND --help` has its arguments, `calibadv train --help` every configuration key.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
