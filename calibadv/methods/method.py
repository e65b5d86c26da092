"""A method is data: how to roll out, what the prompt ends with, and how a group's credit is assigned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from calibadv.advantages.group import outcome_credit
from calibadv.advantages.silver import StepScores, silver_documents, step_scores
from calibadv.rollout.plans import Plan, chains
from calibadv.types import Credit, Group


def silver_scores(group: Group) -> StepScores:
    """The paper's step scores, which diagnose every method's groups, also where the method does not use them."""
    return step_scores(group, silver_documents(group))


@dataclass(frozen=True, slots=True)
class Method:
    """One way to train. The trainer calls these and knows no method by name."""

    name: str
    advantages: Callable[[Group], Credit]
    plan: Callable[[int], Plan] = chains  # rollouts a question -> plan
    prefill: str = ""  # ends the prompt and every observation; never trained
    base: Callable[[Group], Credit] = outcome_credit  # the credit before calibration, to show beside `advantages`
    scores: Callable[[Group], StepScores] = silver_scores
