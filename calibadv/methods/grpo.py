"""GRPO as Search-R1 uses it: one group-relative outcome advantage for every token of a rollout."""

from __future__ import annotations

from calibadv.advantages.group import outcome_credit
from calibadv.methods.method import Method
from calibadv.methods.reasons import outcome_reasons


def grpo() -> Method:
    """Group Relative Policy Optimization (Shao et al. 2024; Search-R1, Jin et al. 2025)."""
    return Method("grpo", advantages=outcome_credit, explain=outcome_reasons)
