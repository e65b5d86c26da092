"""A small run to track: a group of two rollouts with their credit, and a history of metrics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibadv.tracking.record import RolloutRecord, record_rollout
from calibadv.types import Document, Question, Trajectory, TurnKind
from tests.build import group, trajectory

DOCUMENTS = {
    "d0": Document("d0", "The Salt Road", "The Salt Road is a film by Ilda Maren."),
    "d1": Document("d1", "Ilda Maren", "Ilda Maren was born in Brenholt."),
}
FIRST = "<think>Who made it?</think><search>q</search>"
LAST = "She was born there.</think><answer>Ada</answer>"  # a prefilled <think>


def record(step: int = 3) -> RolloutRecord:
    """Rollout 1 of 2: one search (2 tokens, c = 0.5, advantage -1 softened to -0.5) and a wrong answer (3 tokens)."""
    rollouts = group(
        trajectory(1.0, [2, 3], [["d0"]]),
        _timed(trajectory(0.0, [2, 3], [["d0", "d9"]], texts=[FIRST, LAST])),
        question=Question("pocket/7", "Where was the director born?", ("Brenholt",)),
    )
    assert rollouts.trajectories[1].turns[0].kind is TurnKind.SEARCH
    return record_rollout(
        rollouts,
        1,
        step=step,
        documents=DOCUMENTS,
        scores=[0.5],
        before=np.asarray([-1, -1, -1, -1, -1], dtype=np.float32),
        after=np.asarray([-0.5, -0.5, -1, -1, -1], dtype=np.float32),
        silver={"d0"},
    )


def _timed(rollout: Trajectory) -> Trajectory:
    """The search took 1.5 s to be written and 0.25 s to be answered, the answer 0.5 s."""
    search, answer = rollout.turns
    return replace(rollout, turns=(replace(search, generate_s=1.5, search_s=0.25), replace(answer, generate_s=0.5)))


def history(steps: int = 12) -> list[dict[str, float]]:
    """Metrics of a run that learns."""
    return [
        {
            "step": float(step),
            "reward/mean": 0.05 * step,
            "reward/f1": 0.06 * step,
            "policy/entropy": 2.0 - 0.1 * step,
            "policy/ppl": 3.0 - 0.1 * step,
            "rollout/high_ppl_ratio": 0.01,
            "rollout/searches": 1 + 0.1 * step,
            "rollout/tokens_per_s": 1500.0,
            "advantage/neg_pos_ratio": 1.0,
            "advantage/neg_pos_ratio_before": 2.0,
            "silver/score_mean": 0.4,
            **{f"silver/score_bin_{name}": 0.25 for name in ("0", "0.33", "0.67", "1")},
            "time/rollout_s": 6.0,
            "time/learn_s": 3.0,
            "time/other_s": 1.0,
            **({"eval/f1": 0.05 * step} if step % 4 == 0 else {}),
        }
        for step in range(1, steps + 1)
    ]
