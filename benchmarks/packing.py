"""Computed over real tokens of a learner's micro-batches: what padding adds, and what shared beginnings save.

The pocket step of 32 questions (shipped policy, BM25): chains of GRPO, five a question, and the trees of Tree-GRPO. And
rows of made-up ids at a 7B run's lengths: 512 questions x 5, log-normal, dealt to 64 learners. Padding alone is counted
with every row's ids made its own, so that no two begin alike.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.dealing import MINIBATCHES, QUESTIONS, SAMPLES, lengths
from benchmarks.learner import rolled_out
from benchmarks.lines import Line, at_least, at_most, run
from calibadv.batching import GroupShard, Row, shard_groups, to_row
from calibadv.micro_batches import MicroBatch, micro_batches
from calibadv.rollout.plans import trees
from calibadv.types import Group, IntArray, Question, Trajectory, Turn, TurnKind

POCKET_BUDGET, LARGE_BUDGET = 8192, 16384  # the default, and that of the 7B recipes
LEARNERS = 64


def measure() -> list[Line]:
    """Padding of two kinds of step, and what is saved of chains and trees."""
    with tempfile.TemporaryDirectory() as folder:
        chains = asyncio.run(rolled_out(Path(folder)))
        forest = asyncio.run(rolled_out(Path(folder), trees(2, 2, 1)))
    rows = rows_of(chains)
    padded = computed(micro_batches(apart(rows), POCKET_BUDGET)) / real(rows)
    lines = [
        at_most(
            "padded / real tokens, pocket step, rows packed",
            computed(micro_batches(apart(rows), POCKET_BUDGET, packed=True)) / real(rows),
            1.02,
            more=f" (padded: {padded:.2f})",
        )
    ]
    shards = shard_groups(long_step(), num_minibatches=MINIBATCHES, num_shards=LEARNERS, seed=0)
    parts = [
        [to_row(t, np.zeros(t.num_actions, np.float32)) for t, drawn in _drawn(shard) if drawn == minibatch]
        for shard in shards
        for minibatch in range(MINIBATCHES)
    ]
    tokens = sum(real(part) for part in parts)
    ratios = [
        sum(computed(micro_batches(apart(part), LARGE_BUDGET, packed=packed)) for part in parts if part) / tokens
        for packed in (True, False)
    ]
    lines.append(
        at_most(
            f"padded / real tokens, 7B lengths, {LEARNERS} learners, rows packed",
            ratios[0],
            1.02,
            more=f" (padded: {ratios[1]:.2f})",
        )
    )
    for what, groups in (("chains", chains), ("trees", forest)):
        made = rows_of(groups)
        lines.append(saved(what, made))
    return lines


def saved(what: str, rows: Sequence[Row]) -> Line:
    """What packing saves of the tokens that the rows share, one group's rows in one pass."""
    could = real(rows) - distinct([row.ids_T[:-1] for row in rows])
    does = real(rows) - computed(micro_batches(rows, POCKET_BUDGET, packed=True))
    return at_least(
        f"shared tokens of {what} that are computed once (of a pass over the step)",
        100 * does / could,
        95,
        " %",
        f" of the {could / real(rows):.0%} that are shared",
    )


def rows_of(groups: Sequence[Group]) -> list[Row]:
    """A row a rollout."""
    return [to_row(t, np.zeros(t.num_actions, np.float32)) for group in groups for t in group.trajectories]


def apart(rows: Sequence[Row]) -> list[Row]:
    """The same rows, each with ids of its own: none begin alike."""
    return [replace(row, ids_T=row.ids_T + 1_000_000 * index) for index, row in enumerate(rows)]


def computed(batches: Sequence[MicroBatch]) -> int:
    """Tokens that are computed, padding included."""
    return sum(micro.ids_BT.size for micro in batches)


def real(rows: Sequence[Row]) -> int:
    """Tokens that have to be computed where nothing is shared: all but each row's last, which predicts nothing."""
    return sum(len(row.ids_T) - 1 for row in rows)


def distinct(rows: Sequence[IntArray]) -> int:
    """Tokens of the rows of which no other row has the same beginning up to there: the nodes of their trie."""
    made, before = 0, np.empty(0, np.int64)
    for ids_T in sorted(rows, key=lambda ids_T: ids_T.astype(">i8").tobytes()):
        length = min(len(before), len(ids_T))
        differ = (before[:length] != ids_T[:length]).nonzero()[0]
        made += len(ids_T) - (int(differ[0]) if len(differ) else length)
        before = ids_T
    return made


def long_step() -> list[Group]:
    """The step of `benchmarks.dealing` as rollouts: a prompt, and one turn that is the rest."""
    random = np.random.default_rng(0)
    return [
        Group(Question(f"made/{index}", "?", ("a",)), tuple(_rollout(random, int(length)) for length in row))
        for index, row in enumerate(lengths(random).reshape(QUESTIONS, SAMPLES))
    ]


def _rollout(random: np.random.Generator, length: int) -> Trajectory:
    ids = random.integers(0, 1000, max(length, 2))
    turn = Turn(TurnKind.ANSWER, ids, np.zeros(len(ids), np.float32), np.arange(0), "")
    return Trajectory(np.arange(200), (turn,), "a", 0.0, 1.0, 0.0)


def _drawn(shard: Sequence[GroupShard]) -> list[tuple[Trajectory, int]]:
    return [(item.group.trajectories[i], item.minibatch_G[i]) for item in shard for i in item.trained]


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
