"""GRPO as Search-R1 uses it: one group-relative outcome advantage for every token of a rollout."""

from __future__ import annotations

from functools import partial

from calibadv.advantages.group import Baseline, outcome_credit
from calibadv.methods.method import Method
from calibadv.methods.reasons import outcome_reasons


def grpo(*, baseline: Baseline = "grpo") -> Method:
    """Group Relative Policy Optimization (Shao et al. 2024; Search-R1, Jin et al. 2025).

    `baseline` is how a group's rewards become advantages (`advantages.group.baseline_divisor`): "dr_grpo", "rloo",
    "maxrl" or "reinforce++" in place of GRPO's.
    """
    credit = partial(outcome_credit, baseline=baseline)
    return Method(
        "grpo",
        advantages=credit,
        base=credit,
        explain=partial(outcome_reasons, baseline=baseline),
        by_step_deviation=baseline == "reinforce++",
    )
