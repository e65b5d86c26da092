"""CalibAdv: soften the blame of good searches, rebalance the answers, put `<think>` in the prompt.

GRPO credit -> soften_negative (sec. 3.2, eq. 3-5) -> rebalance_answers (sec. 3.3, eq. 6-7); prefill (sec. 3.4)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from calibadv.advantages.group import Baseline, outcome_credit
from calibadv.advantages.rebalance import OneSided, rebalance_answers, rebalance_every_step
from calibadv.advantages.silver import (
    StepScores,
    correct_rollouts,
    silver_documents,
    soften_negative,
    step_scores,
    uniform_scores,
)
from calibadv.methods.calibration_reasons import calibration_reasons, silver_words
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation
from calibadv.rewards.judge import Endpoint, judged_steps
from calibadv.rewards.own_turns import unscored
from calibadv.rewards.turns import TurnScorer
from calibadv.tags import PRE_THINK
from calibadv.types import Credit, Group, TurnKind

SoftPen = Literal["silver", "uniform", "judge", "turns", "none"]


@dataclass(frozen=True, slots=True)
class Switches:
    """Where the paper's text and the released code differ. The defaults are the paper's."""

    best_tier_only: bool = False
    new_documents_only: bool = False
    repeats_score_zero: bool = False
    well_formed_only: bool = False
    one_sided: OneSided = "keep"


PRESETS = {"paper": Switches(), "reference": Switches(True, True, True, True, "zero")}


def calibadv(
    preset: str = "paper",
    *,
    soft_pen: SoftPen = "silver",
    adv_reb: bool = True,
    adv_reb_at: Literal["answer", "every_step"] = "answer",
    pre_think: bool = True,
    lam: float = 1.0,
    correct_threshold: float = 0.7,
    best_tier_only: bool | None = None,
    new_documents_only: bool | None = None,
    repeats_score_zero: bool | None = None,
    well_formed_only: bool | None = None,
    one_sided: OneSided | None = None,
    baseline: Baseline = "grpo",
    judge_url: str = "",
    judge_model: str = "",
    judge_concurrency: int = 16,
    judge_timeout_s: float = 30.0,
    judge_retries: int = 2,
) -> Method:
    """Calibrated advantages (Wu et al.). A switch left at None is the preset's.

    `soft_pen = "uniform"` is the paper's control (c = 0.5 everywhere); "judge" has c from a judge model, asked during
    the rollout (`rewards.judge`; the presets' switches on scores have no part in it), and needs `judge_url` and
    `judge_model`; "turns" has c from the user's `reward.turns`, cut to [0, 1] (ours). `lam` is the ratio of positive to
    negative mass at the answer (the released code's knob is 1 / lam).
    `adv_reb_at` "every_step" rebalances at each step index of the group, as the paper's sweep of lambda does (sec. 4.4;
    it has `soft_pen` "none" and no `pre_think`).
    `baseline` is that of the credit before calibration, as for `grpo`; the paper's is GRPO's.
    ValueError for an unknown preset, soft penalty or `lam` <= 0, and for a judge that cannot be asked.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}, expected one of {sorted(PRESETS)}")
    if soft_pen not in get_args(SoftPen):
        raise ValueError(f"soft_pen is {soft_pen!r}, expected one of {', '.join(get_args(SoftPen))}")
    if adv_reb_at not in ("answer", "every_step"):
        raise ValueError(f"adv_reb_at is {adv_reb_at!r}, expected 'answer' or 'every_step'")
    if lam <= 0:
        raise ValueError(f"lam is {lam}, expected a positive ratio (1 balances the two masses)")
    given: dict[str, Any] = {
        "best_tier_only": best_tier_only,
        "new_documents_only": new_documents_only,
        "repeats_score_zero": repeats_score_zero,
        "well_formed_only": well_formed_only,
        "one_sided": one_sided,
    }
    scorer: Callable[[], TurnScorer] | None = unscored if soft_pen == "turns" else None
    if soft_pen == "judge":
        scorer = judged_steps(Endpoint(judge_url, judge_model, judge_concurrency, judge_timeout_s, judge_retries))
    switch = replace(PRESETS[preset], **{name: value for name, value in given.items() if value is not None})
    correct: dict[str, Any] = {"correct_threshold": correct_threshold, "best_tier_only": switch.best_tier_only}

    def scores(group: Group) -> StepScores:
        if soft_pen == "uniform":
            return uniform_scores(group)
        if soft_pen in ("judge", "turns"):
            return turn_rewards(group)
        return step_scores(
            group,
            silver_documents(group, **correct),
            new_documents_only=switch.new_documents_only,
            repeats_score_zero=switch.repeats_score_zero,
            well_formed_only=switch.well_formed_only,
        )

    def softened(group: Group) -> Credit:
        credit = outcome_credit(group, baseline)
        return credit if soft_pen == "none" else soften_negative(credit, group, scores(group))

    def advantages(group: Group) -> Credit:
        rebalance = rebalance_answers if adv_reb_at == "answer" else rebalance_every_step
        return rebalance(softened(group), group, lam=lam, one_sided=switch.one_sided) if adv_reb else softened(group)

    def explain(group: Group) -> Explanation:
        if soft_pen == "silver":
            correct_G = correct_rollouts(group, **correct)
            words = silver_words(group, correct_G, scores(group), well_formed_only=switch.well_formed_only)
        else:
            words = [[f"c: {soft_pen}"] * len(t.turns) for t in group.trajectories]
        penalty = None if soft_pen == "none" else words
        return calibration_reasons(
            group,
            softened(group),
            advantages(group),
            penalty,
            lam=lam,
            every_step=adv_reb_at == "every_step",
            baseline=baseline,
        )

    return replace(
        grpo(baseline=baseline),
        name="calibadv",
        advantages=advantages,
        scores=scores,
        prefill=PRE_THINK if pre_think else "",
        score_turns=scorer,
        explain=explain,
    )


def turn_rewards(group: Group) -> StepScores:
    """The rewards of the intermediate steps as their scores c in [0, 1]; 0 for one that called other tools alone."""
    rows = ([0.0 if turn.kind is TurnKind.CALL else turn.reward for turn in t.turns[:-1]] for t in group.trajectories)
    return [np.array(row_S, dtype=np.float32).clip(0, 1) for row_S in rows]
