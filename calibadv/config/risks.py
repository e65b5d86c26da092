"""Settings that are lawful together and under which training has failed: what a run, its dry run and the doctor say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from calibadv.config.tree import Config

# Of a sequence's ratio: a hundred times GSPO's own; the mean of hundreds of log-ratios does not get there.
WIDE_CLIP = 0.05

# A second, of a replica with a cross-encoder: about half of what one on a data centre's GPU was reckoned to answer.
CROSS_ENCODED_QUERIES = 50


@dataclass(frozen=True, slots=True)
class Risk:
    """A setting, what may come of it, and what to do."""

    name: str
    said: str
    remedy: str


def risks(config: Config) -> Iterator[Risk]:
    """What is known to go wrong with these settings; nothing for the defaults and the recipes."""
    if (top_p := config.rollout.top_p) < 1:
        # Both kinds of `learner.old_logprobs` are of the whole distribution: neither takes the mismatch away.
        yield Risk(
            "top_p",
            f"rollouts are sampled with top_p {top_p:g}, log-probs are of the whole distribution: with much more "
            "negative than positive advantage such training turned to garbled text, and with top_p 1 it did not "
            "(docs/lab.md)",
            "set rollout.top_p 1; or keep it, and watch advantage/neg_pos_ratio and policy/entropy",
        )
    learner = config.learner
    if learner.surrogate in ("gspo", "gspo_turn") and learner.clip >= WIDE_CLIP:
        yield Risk(
            "clip",
            f"learner.surrogate '{learner.surrogate}' has one ratio for many tokens, which stays near 1, and "
            f"learner.clip {learner.clip:g} is of a single token's: nothing will be clipped",
            "set learner.clip 3e-4 and learner.clip_high 4e-4, as in GSPO's paper, and watch learner/clipped_share",
        )
    if learner.gpus_per_learner and learner.dtype == "float32":
        yield Risk(
            "dtype",
            "learner.dtype 'float32' on a GPU takes no tensor cores, and attention with fewer key-value heads than "
            "heads has no fused kernel there: its memory grows with the square of the longest rollout (docs/gpu.md)",
            "set learner.dtype 'bfloat16'",
        )
    search = config.search
    waiting, in_time = config.rollouts_per_step, search.timeout_s * search.replicas * CROSS_ENCODED_QUERIES
    if search.reranker == "cross" and not search.elsewhere and waiting > in_time:
        yield Risk(
            "search queue",
            f"a step's {waiting:,} rollouts may all ask at once, and {search.replicas} x {CROSS_ENCODED_QUERIES} "
            f"queries a second, what a cross-encoder on a GPU may be down to, are {in_time:,.0f} in search.timeout_s "
            f"{search.timeout_s:g}: what waits longer is asked again behind the others",
            f"set search.timeout_s {math.ceil(waiting / search.replicas / CROSS_ENCODED_QUERIES)} or more and "
            "search.patience_s several times that, or raise search.replicas",
        )
