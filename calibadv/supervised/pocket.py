"""The warm start of the pocket policy, on demonstrations from worlds that are drawn afresh all along."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch

from calibadv.pocket.supervised import WarmStart, build_policy, train
from calibadv.pocket.tokenizer import POCKET_TEMPLATE, build_tokenizer
from calibadv.rollout.dialogue import Dialogue

log = logging.getLogger("workflows.warm_start")


def warm_start_pocket(folder: Path, recipe: WarmStart, threads: int = 1) -> list[float]:
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
