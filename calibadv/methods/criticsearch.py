"""CriticSearch: a frozen judge, who knows the answer, labels each search good or bad in hindsight.

A_search = (1 - alpha) * A_O + alpha * normalised label;   A_answer = A_O
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from calibadv.advantages.group import Baseline, check_within_group, group_advantages
from calibadv.advantages.turns import relative_to_peers, spread, turn_rewards
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, Term, outcome_reasons, peer_products
from calibadv.rewards.gold_labels import gold_labels
from calibadv.rewards.gold_match import GoldNeed
from calibadv.rewards.turns import at_once
from calibadv.types import Credit, Group, TurnKind


def criticsearch(
    *,
    alpha: float = 0.25,
    judge: Literal["gold", "endpoint"] = "gold",
    min_gold: float = 0.5,
    judge_url: str = "",
    judge_model: str = "",
    judge_concurrency: int = 16,
    judge_timeout_s: float = 30.0,
    judge_retries: int = 2,
    baseline: Baseline = "grpo",
) -> Method:
    """Retrospective search labels of +1 and -1, after CriticSearch (2025), which we know by its abstract alone.

    No number here is the paper's. `judge` "gold" needs no model: a search is good if it finds a gold passage that is
    new to its rollout (our stand-in); training is refused where less than `min_gold` of the gold passages are found in
    the corpus, by id or by title and text. "endpoint" asks the model at `judge_url`, which speaks OpenAI's chat
    completions; a verdict that cannot be read is a 0. `baseline` is A_O's, as for `grpo`. ValueError for `alpha` or
    `min_gold` outside [0, 1], an unknown judge, an endpoint without url or model, or a baseline on the step's scale.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a share in [0, 1]")
    check_within_group(baseline, "criticsearch", "labels")
    if judge not in ("gold", "endpoint"):
        raise ValueError(f"judge is {judge!r}, expected 'gold' (gold passages) or 'endpoint' (a model)")
    score_turns, gold = at_once(gold_labels), GoldNeed("documents", min_gold) if judge == "gold" else None
    if judge == "endpoint":
        if not (judge_url and judge_model):
            raise ValueError(
                f"judge = 'endpoint' with judge_url {judge_url!r} and judge_model {judge_model!r}: "
                "expected both; set them, or use judge = 'gold'"
            )
        from calibadv.rewards.judge import Endpoint, judged_searches

        endpoint = Endpoint(
            judge_url, judge_model, concurrency=judge_concurrency, timeout_s=judge_timeout_s, retries=judge_retries
        )
        score_turns = judged_searches(endpoint)

    def advantages(group: Group) -> Credit:
        return mixed_credit(group, alpha, baseline)

    def explain(group: Group) -> Explanation:
        labels = peer_products(turn_rewards(group), judged(group), "label")
        return [
            [
                reasons if key is None else reasons.times(Term("1 - α", 1 - alpha)).plus(Term("α", alpha), *label)
                for reasons, key, label in zip(*row, strict=True)
            ]
            for row in zip(outcome_reasons(group, baseline=baseline), judged(group), labels, strict=True)
        ]

    return replace(
        grpo(baseline=baseline),
        name="criticsearch",
        advantages=advantages,
        score_turns=score_turns,
        gold=gold,
        explain=explain,
    )


def mixed_credit(group: Group, alpha: float, baseline: Baseline = "grpo") -> Credit:
    """(1 - alpha) * A_O + alpha * label on intermediate searches, A_O elsewhere. One row [N] a trajectory.

    Labels are normalised over all intermediate searches of the group, unbiased std; equal labels, or one alone, are 0
    then. Intermediate: every turn but the trajectory's last.
    """
    searches = judged(group)
    labels = relative_to_peers(turn_rewards(group), searches)
    outcomes_G = group_advantages([t.reward for t in group.trajectories], baseline)
    rows = []
    for outcome, labels_S, searches_S in zip(outcomes_G, labels, searches, strict=True):
        judged_S = np.array([search is not None for search in searches_S], dtype=np.bool_)
        rows.append(np.where(judged_S, (1 - alpha) * outcome + alpha * labels_S, outcome))
    return spread(rows, group)


def judged(group: Group) -> list[list[int | None]]:
    """0 at each intermediate search, all of which are compared with each other, None elsewhere. Rows [S]."""
    return [
        [0 if turn.kind is TurnKind.SEARCH and s < len(t.turns) - 1 else None for s, turn in enumerate(t.turns)]
        for t in group.trajectories
    ]
