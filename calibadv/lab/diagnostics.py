"""What only the laboratory can measure, since it knows its language: legality, garble, and lengths of wrong and right.

The rest is `calibadv.diagnostics`, as in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from calibadv.advantages.silver import silver_documents, step_scores
from calibadv.diagnostics import group_metrics
from calibadv.lab.language import Language
from calibadv.methods.method import Method
from calibadv.methods.rows import step_base
from calibadv.types import Credit, Group, Trajectory

RIGHT = 0.7  # reward from which a rollout counts as right, as for silver documents


def step_diagnostics(
    groups: Sequence[Group], trained: Sequence[Credit], method: Method, lang: Language
) -> dict[str, float]:
    """Metrics of one step's groups and of the credit that trained them, by path; what is undefined is left out."""
    before = list(map(step_base(groups, method), groups))
    silver = [silver_documents(group) for group in groups]
    scores = [step_scores(group, documents) for group, documents in zip(groups, silver, strict=True)]
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    return {
        **group_metrics(groups, before, trained, scores, silver),
        **language_metrics(trajectories, lang),
        **mass_metrics(trained),
    }


def mass_metrics(credits: Sequence[Credit]) -> dict[str, float]:
    """Sum of the advantages over a step's tokens, and of their sizes: what the update pushes, and how much it moves."""
    flat = np.concatenate([np.zeros(0), *(row_N for credit in credits for row_N in credit)], dtype=np.float64)
    return {"advantage/net_mass": float(flat.sum()), "advantage/absolute_mass": float(np.abs(flat).sum())}


def language_metrics(trajectories: Sequence[Trajectory], lang: Language) -> dict[str, float]:
    """How much of the language is left, and how long wrong rollouts are beside right ones.

    `language/legal` share of transitions between fillers that the grammar has, `/garbled` share of rollouts with a word
    of the tail, `/fillers` fillers a rollout; `length/wrong_over_right` mean action tokens of wrong over right ones.
    """
    pairs = legal = fillers = garbled = 0
    for trajectory in trajectories:
        words = [lang.words[i] for turn in trajectory.turns for i in turn.action_ids.tolist()]
        fillers += sum(word in lang.successors for word in words)
        transitions = [(a, b) for a, b in pairwise(words) if a in lang.successors and b in lang.successors]
        pairs += len(transitions)
        legal += sum(second in lang.successors[first] for first, second in transitions)
        garbled += any((turn.action_ids >= lang.first_tail).any() for turn in trajectory.turns)
    metrics = {"language/garbled": garbled / len(trajectories), "language/fillers": fillers / len(trajectories)}
    if pairs:
        metrics["language/legal"] = legal / pairs
    lengths = {right: [t.num_actions for t in trajectories if (t.reward >= RIGHT) == right] for right in (True, False)}
    if lengths[True] and lengths[False]:
        metrics["length/wrong_over_right"] = float(np.mean(lengths[False]) / np.mean(lengths[True]))
    return metrics
