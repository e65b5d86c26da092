"""Begin a project of your own: `calibadv init NAME` writes a folder that trains at once.

It holds a recipe, questions and documents of the pocket world, a reward and a search function, and a README that says
what to replace by your own.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("init")

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from calibadv.pocket import write_pocket_world
from workflows.command import command_parser, run_command

SCAFFOLD = Path(__file__).parent / "scaffold"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written. ValueError where there is something of that name."""
    parser = command_parser(__doc__)
    parser.add_argument("name", type=Path, help="the folder to write")
    folder = parser.parse_args(arguments).name
    if folder.exists():
        raise ValueError(f"{folder} is there already: give another name, or move it away")
    write_project(folder)
    print(f"{folder} is there. Next:\n  cd {folder}\n  calibadv train --config recipe.toml")  # noqa: T201
    return 0


def write_project(folder: Path) -> None:
    """Writes the folder."""
    folder.mkdir(parents=True)
    for file in SCAFFOLD.iterdir():
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    with TemporaryDirectory() as cache:
        world = write_pocket_world(Path(cache) / "pocket")
        for source, name in ((world.train, "questions"), (world.test, "test"), (world.corpus, "corpus")):
            shutil.copyfile(source, folder / f"{name}.jsonl")


if __name__ == "__main__":
    sys.exit(run_command(main))
