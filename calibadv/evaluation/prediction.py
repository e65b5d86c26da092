"""A question's greedy answer with its scores: one line of predictions.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from calibadv.diagnostics import perplexity
from calibadv.rewards.answer import best_over_golden, cover_em, exact_match
from calibadv.types import Question, Trajectory, TurnKind


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of one question. Where the environment failed, scores are None: nothing was answered, nor wrongly."""

    id: str
    question: str
    golden_answers: tuple[str, ...]
    answer: str | None  # None also where the policy gave none
    f1: float | None  # in [0, 1], as em, cover_em and format
    em: float | None
    cover_em: float | None
    format: float | None
    searches: int | None
    tokens: int | None  # sampled
    perplexity: float | None  # of the sampled tokens; None without any
    truncated: bool
    infra_failed: bool
    hops: int | None
    type: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `from_dict` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Prediction:
        """The prediction that `to_dict` wrote, also after a passage through JSON."""
        return Prediction(**{**values, "golden_answers": tuple(values["golden_answers"])})


def predict(question: Question, trajectory: Trajectory | None) -> Prediction:
    """The prediction of a greedy rollout; `trajectory` None, or one that is `infra_failed`: the environment failed."""
    asked: dict[str, Any] = {
        "id": question.id,
        "question": question.text,
        "golden_answers": question.golden_answers,
        "hops": _hops(question),
        "type": question.metadata.get("type"),
    }
    if trajectory is None or trajectory.infra_failed:
        scores = ("answer", "f1", "em", "cover_em", "format", "searches", "tokens", "perplexity")
        nothing: dict[str, Any] = dict.fromkeys(scores)
        return Prediction(**asked, **nothing, truncated=False, infra_failed=True)
    logprobs_N = np.concatenate([np.empty(0, np.float32), *(turn.logprobs for turn in trajectory.turns)])
    return Prediction(
        **asked,
        answer=trajectory.answer,
        f1=trajectory.answer_reward,
        em=best_over_golden(trajectory.answer, question.golden_answers, exact_match, question.tokens),
        cover_em=best_over_golden(trajectory.answer, question.golden_answers, cover_em, question.tokens),
        format=trajectory.format_reward,
        searches=sum(turn.kind is TurnKind.SEARCH for turn in trajectory.turns),
        tokens=trajectory.num_actions,
        perplexity=perplexity(logprobs_N),
        truncated=trajectory.truncated,
        infra_failed=False,
    )


def _hops(question: Question) -> int | None:
    said = question.metadata.get("hops", "")
    return int(said) if said.isdecimal() else len(question.sub_queries) or None
