"""A ratio of many tokens' mean (GSPO) with a clip for single tokens: it would never act."""

from __future__ import annotations

from collections.abc import Iterator

from calibadv.doctor.finding import Finding, warned
from calibadv.doctor.subject import Subject

WIDE = 0.05  # a hundred times the paper's; the mean of hundreds of log-ratios does not get there


def sequence_clip(subject: Subject) -> Iterator[Finding]:
    """A warning where `learner.surrogate` is GSPO's and `learner.clip` is of PPO's size; nothing elsewhere."""
    learner = subject.config.learner
    if learner.surrogate in ("gspo", "gspo_turn") and learner.clip >= WIDE:
        yield warned(
            "clip",
            f"learner.surrogate '{learner.surrogate}' has one ratio for many tokens, which stays near 1, and "
            f"learner.clip {learner.clip:g} is of a single token's: nothing will be clipped",
            "set learner.clip 3e-4 and learner.clip_high 4e-4, as in GSPO's paper, and watch learner/clipped_share",
        )
