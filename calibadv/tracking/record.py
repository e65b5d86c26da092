"""A rollout with its credit, for people: one conversion, read by rollouts.jsonl, by MLflow traces and by the view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean
from typing import Any

from calibadv.measures import turn_rows
from calibadv.tags import think_text
from calibadv.types import Document, FloatArray, Group, Turn, TurnKind


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A retrieved document; `silver` if a correct rollout of the group retrieved it."""

    id: str
    title: str
    text: str
    silver: bool


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What a tool beside the search said."""

    tool: str
    text: str


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn. Advantages are means over its tokens; a field is None where it has no meaning."""

    kind: str
    think: str
    text: str  # what the policy wrote, whole
    query: str | None
    answer: str | None
    documents: tuple[DocumentRecord, ...]
    score: float | None  # silver score c of an intermediate query
    advantage_before: float | None  # of the method without calibration
    advantage: float | None  # that the policy is trained with
    tokens: int
    generate_s: float = 0.0  # what the engine took, its queue included; 0 where it was not measured
    search_s: float = 0.0
    calls: tuple[CallRecord, ...] = ()  # of tools beside the search


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One rollout of a question at a training step, with its rewards and its credit."""

    step: int
    question_id: str
    question: str
    golden_answers: tuple[str, ...]
    index: int  # of the rollout in its group
    group_size: int
    answer: str | None
    answer_reward: float
    format_reward: float
    reward: float
    policy_version: int
    truncated: bool
    turns: tuple[TurnRecord, ...]
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    read_tokens: int | None = None  # prompt and documents; None in a record of an earlier release

    @property
    def silver_score(self) -> float | None:
        """Mean c of its intermediate searches, in [0, 1] (CalibAdv sec. 3.2); None where none has one."""
        scores = [turn.score for turn in self.turns if turn.score is not None]
        return fmean(scores) if scores else None

    @property
    def advantage(self) -> float | None:
        """Mean over its tokens of the advantage that it is trained with; None where none is known."""
        known = [(turn.advantage, turn.tokens) for turn in self.turns if turn.advantage is not None and turn.tokens]
        return fmean(*zip(*known, strict=True)) if known else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `from_dict` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RolloutRecord:
        """The record that `to_dict` wrote, also after a passage through JSON; what is no field of it is left aside."""
        values = {name.name: values[name.name] for name in fields(RolloutRecord) if name.name in values}
        turns = (
            TurnRecord(
                **{
                    **turn,
                    "documents": tuple(DocumentRecord(**doc) for doc in turn["documents"]),
                    "calls": tuple(CallRecord(**call) for call in turn.get("calls", ())),
                }
            )
            for turn in values["turns"]
        )
        return RolloutRecord(
            **{**values, "golden_answers": tuple(values["golden_answers"]), "turns": tuple(turns)},
        )


def record_rollout(
    group: Group,
    index: int,
    *,
    step: int,
    documents: Mapping[str, Document] | None = None,
    scores: Sequence[float] | FloatArray | None = None,
    before: FloatArray | None = None,
    after: FloatArray | None = None,
    silver: AbstractSet[str] = frozenset(),
) -> RolloutRecord:
    """Trajectory `index` of `group` as a record.

    `scores` [S]: c of each intermediate step; `before` and `after` [N]: advantages without and with calibration.
    A document missing from `documents` is shown by its id alone.
    """
    trajectory = group.trajectories[index]
    last = len(trajectory.turns) - 1
    if scores is not None and len(scores) != max(last, 0):
        raise ValueError(f"scores must have {max(last, 0)} entries (turns but the last), got {len(scores)}")
    before_rows = None if before is None else turn_rows(trajectory, before)
    after_rows = None if after is None else turn_rows(trajectory, after)
    turns = tuple(
        TurnRecord(
            kind=str(turn.kind),
            think=think_text(turn.text),
            text=turn.text,
            query=turn.query,
            answer=trajectory.answer if turn.kind is TurnKind.ANSWER else None,
            documents=_documents(turn, documents or {}, silver),
            score=float(scores[i]) if scores is not None and i < last and turn.kind is TurnKind.SEARCH else None,
            advantage_before=None if before_rows is None else _mean(before_rows[i]),
            advantage=None if after_rows is None else _mean(after_rows[i]),
            tokens=len(turn.action_ids),
            generate_s=round(turn.generate_s, 6),
            search_s=round(turn.search_s, 6),
            calls=tuple(CallRecord(call.tool, call.text) for call in turn.called if call.text is not None),
        )
        for i, turn in enumerate(trajectory.turns)
    )
    return RolloutRecord(
        step=step,
        question_id=group.question.id,
        question=group.question.text,
        golden_answers=group.question.golden_answers,
        index=index,
        group_size=len(group.trajectories),
        answer=trajectory.answer,
        answer_reward=trajectory.answer_reward,
        format_reward=trajectory.format_reward,
        reward=trajectory.reward,
        policy_version=trajectory.policy_version,
        truncated=trajectory.truncated,
        turns=turns,
        reward_parts=dict(trajectory.reward_parts),
        read_tokens=trajectory.num_tokens - trajectory.num_actions,
    )


def _documents(turn: Turn, known: Mapping[str, Document], silver: AbstractSet[str]) -> tuple[DocumentRecord, ...]:
    found = ((doc_id, known.get(doc_id)) for doc_id in turn.doc_ids)
    return tuple(
        DocumentRecord(doc_id, doc.title if doc else doc_id, doc.text if doc else "", doc_id in silver)
        for doc_id, doc in found
    )


def _mean(row_L: FloatArray) -> float | None:
    return float(row_L.mean()) if len(row_L) else None
