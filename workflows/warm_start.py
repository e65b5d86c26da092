"""Warm start: `workflows/warm_start.py pocket|gold …`; `--help` after each.

`pocket --out FOLDER` makes the pocket policy; the package ships what seed 0 writes. On one machine the same seed gives
the same losses and weights; on another, equally good ones (tests/pocket/test_policy.py says what equal means).

`gold --model MODEL --questions FILE --corpus FILE --out FOLDER [--config RECIPE] [--section.key value …]` trains any
causal language model on gold decompositions: search, prompt and limits are the recipe's, so that it learns what its
rollouts will be.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("warm_start")  # before what takes seconds to import

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibadv.config import POCKET, load_config
from calibadv.config.command_line import KEYS_TOO, parse
from workflows.command import command_parser, run_command
from workflows.shipped import RECIPES, recipe_file


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written. Raises ValueError for input that cannot be used, before anything is trained."""
    parser = warm_start_parser()
    known, overrides = parse(parser, arguments)
    if known.command == "pocket":
        if overrides:
            parser.error(f"unrecognized arguments: {', '.join(overrides)}")
        _pocket(known)
    else:
        _gold(known, overrides)
    return 0


def _pocket(known: argparse.Namespace) -> None:
    with loading():
        from calibadv.pocket.supervised import WarmStart, warm_start_pocket
    steps = {} if known.steps is None else {"steps": known.steps}
    warm_start_pocket(known.out, WarmStart(seed=known.seed, **steps), known.threads)


def _gold(known: argparse.Namespace, overrides: Mapping[str, Any]) -> None:
    with loading():
        from calibadv.supervised.gold import GoldRequest, warm_start_gold
        from calibadv.supervised.training import GoldRecipe
    top_k = {} if known.top_k is None else {"search.top_k": known.top_k}
    file = known.config or (RECIPES / "pocket.toml" if known.model == POCKET else None)
    config = load_config(file, top_k | dict(overrides))
    recipe = GoldRecipe(**{field.name: getattr(known, field.name) for field in dataclasses.fields(GoldRecipe)})
    names = ("model", "questions", "corpus", "out", "held_out", "keep_unsupported", "save_dtype", "limit")
    same = {name: getattr(known, name) for name in names}
    warm_start_gold(GoldRequest(**same, config=config, recipe=recipe))


def warm_start_parser() -> argparse.ArgumentParser:
    """The parser; `command` is which policy learns."""
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="pocket|gold")

    pocket = commands.add_parser("pocket", help="the pocket policy, from nothing", allow_abbrev=False)
    pocket.add_argument("--out", type=Path, required=True, help="the folder to write")
    pocket.add_argument("--seed", type=int, default=0)
    pocket.add_argument("--steps", type=int, help="fewer than the recipe's: a quick look")
    pocket.add_argument("--threads", type=int, default=1)

    gold = commands.add_parser(
        "gold", help="a pretrained model on gold decompositions", allow_abbrev=False, epilog=KEYS_TOO
    )
    gold.add_argument("--model", required=True, help="a folder, a hub name, or pocket")
    gold.add_argument("--questions", type=Path, required=True, help="questions with gold sub-queries")
    gold.add_argument("--corpus", type=Path, required=True, help="the documents to search: a file or a prepared store")
    gold.add_argument("--out", type=Path, required=True, help="the folder to write")
    gold.add_argument("--config", type=recipe_file, help="the recipe of the training that comes later")
    gold.add_argument("--held-out", type=Path, help="questions whose loss is taken after each epoch")
    gold.add_argument("--epochs", type=int, default=3)
    gold.add_argument("--lr", type=float, default=2e-5, help="the peak: 10 %% of the steps up, the rest down to 0")
    gold.add_argument("--batch", type=int, default=8, help="dialogues a step")
    gold.add_argument("--seed", type=int, default=0)
    gold.add_argument("--threads", type=int, default=1)
    gold.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    gold.add_argument("--save-dtype", choices=("float32", "bfloat16"), help="of the written weights (as they were)")
    gold.add_argument("--token-budget", type=int, default=4096, help="padded tokens a micro-batch")
    gold.add_argument("--warmup", type=float, default=0.1, help=argparse.SUPPRESS)
    gold.add_argument("--grad-clip", type=float, default=1.0, help=argparse.SUPPRESS)
    gold.add_argument("--top-k", type=int, help="the same as --search.top_k")
    gold.add_argument("--keep-unsupported", action="store_true", help="also where no document holds the answer")
    gold.add_argument("--limit", type=int, help=argparse.SUPPRESS)  # the first questions only: a quick look
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
