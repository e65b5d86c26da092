"""Makes the pocket policy: `python workflows/warm_start.py --out FOLDER [--seed 0]`.

The package ships what `--seed 0` writes, in calibadv/data/pocket/policy. On one machine the same seed gives the same
losses and weights; on another, equally good ones (see tests/data/test_policy.py for what equal means).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from pathlib import Path

import torch

from calibadv.data.pocket.supervised import WarmStart, build_policy, train
from calibadv.data.pocket.tokenizer import POCKET_TEMPLATE, build_tokenizer
from calibadv.rollout.dialogue import Dialogue

log = logging.getLogger("warm_start")


def warm_start(folder: Path, recipe: WarmStart, threads: int = 1) -> list[float]:
    """The losses of a whole warm start; writes the policy and its tokenizer into `folder`."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    tokenizer = build_tokenizer()
    policy = build_policy(tokenizer, recipe.seed)
    log.info("%.2f M parameters, %d words, %d steps", policy.num_parameters() / 1e6, len(tokenizer), recipe.steps)
    start = time.perf_counter()
    losses = train(policy, Dialogue(tokenizer, template=POCKET_TEMPLATE), recipe)
    folder.mkdir(parents=True, exist_ok=True)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"seed": recipe.seed, "steps": recipe.steps, "losses": [round(loss, 5) for loss in losses]}
    (folder / "warm_start.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    log.info("wrote %s after %.0f s; last loss %.4f nats", folder, time.perf_counter() - start, losses[-1])
    return losses


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=WarmStart().steps, help="fewer than the recipe's: a quick look")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = dataclasses.replace(WarmStart(), seed=arguments.seed, steps=arguments.steps)
    warm_start(arguments.out, recipe, arguments.threads)


if __name__ == "__main__":
    main()
