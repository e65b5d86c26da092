"""The values that flow through one training step: Question -> Trajectory -> Group -> Credit.

Array legend: P prompt tokens, L sampled tokens of a turn, O observation tokens, N action tokens of a trajectory.
Everything here is frozen: a stage returns new values and never writes onto those it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

Credit = list[FloatArray]
"""Advantages of a group: one row [N] a trajectory, N = all its action tokens in order."""


class Phase(StrEnum):
    """What a rollout is for."""

    TRAIN = "train"
    EVAL = "eval"


class TokenUnit(StrEnum):
    """What counts as a word where texts are compared by words. UNSPACED: also a character of Han, Kana, Thai, …"""

    WORDS = "words"
    UNSPACED = "unspaced"


@dataclass(frozen=True, slots=True)
class Document:
    """One passage of the corpus. `id` is its identity everywhere; text is never compared."""

    id: str
    title: str
    text: str
    score: float = 0.0  # of the search that returned it; its scale is the ranker's


@dataclass(frozen=True, slots=True)
class Question:
    """A question with every accepted answer; `id` is unique over all data sets (`dataset/source-id`)."""

    id: str
    text: str
    golden_answers: tuple[str, ...]
    sub_queries: tuple[str, ...] = ()  # gold decomposition, in hop order
    gold_doc_ids: tuple[str, ...] = ()  # corpus ids of the supporting passages
    gold_passages: tuple[str, ...] = ()  # their texts, without titles; () where neither data set nor corpus was asked
    metadata: Mapping[str, str] = field(default_factory=dict)  # e.g. hops, type
    gold_titles: tuple[str, ...] = ()  # one a gold passage
    tokens: TokenUnit = TokenUnit.WORDS  # by which answers to it are scored (`reward.tokens`)


class TurnKind(StrEnum):
    """What the policy did in a turn. CALL: it called tools, or more than it may, and nothing was searched for. VOID:
    nothing that is complete.
    """

    SEARCH = "search"
    CALL = "call"
    ANSWER = "answer"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class CalledTool:
    """A call of a turn that was answered, for people and for metrics."""

    tool: str
    text: str | None = None  # what it said, cut; None of a search, whose documents are the turn's
    seconds: float = field(default=0.0, compare=False)  # by the clock


@dataclass(frozen=True, slots=True)
class Turn:
    """One policy action and what the environment answered. Only `action_ids` ever train."""

    kind: TurnKind
    action_ids: IntArray  # [L] sampled tokens, exactly as the engine returned them
    logprobs: FloatArray  # [L] under the sampling policy, nats
    observation_ids: IntArray  # [O] <information>...</information>, plus any prefilled <think>
    text: str  # the decoded action; for reading and for rewards, never encoded again
    query: str | None = None  # of a search; of several in one turn all
    doc_ids: tuple[str, ...] = ()  # reranked documents, best first
    node: int = -1  # equal nodes in a group are one shared prefix turn
    reward: float = 0.0  # step reward
    answer_span: tuple[int, int] | None = (
        None  # first and one past the last token of <answer>…</answer>, if it is known
    )
    called: tuple[CalledTool, ...] = ()  # its calls of tools, searches among them
    # What it took, for people: by the clock, so that equal turns may differ.
    generate_s: float = field(default=0.0, compare=False)
    search_s: float = field(default=0.0, compare=False)

    @property
    def calls(self) -> int:
        """How many of its calls were answered."""
        return len(self.called)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One rollout of a question: a prompt and its turns, with the parts of its reward."""

    prompt_ids: IntArray  # [P]
    turns: tuple[Turn, ...]
    answer: str | None
    answer_reward: float  # F1 in [0, 1]
    format_reward: float  # 0 or 1
    reward: float  # what `reward.outcome` gives; F1 gated by format unless it says otherwise
    policy_version: int = 0
    tree: int = 0  # trajectories of one tree branched off one first chain; chains by themselves: all 0
    truncated: bool = False  # a token limit (of the turn or of the whole) cut it
    forced_final: bool = False  # wrote a search where only an answer was left
    infra_failed: bool = False  # the environment failed, not the policy: never train on or score it
    reward_parts: Mapping[str, float] = field(default_factory=dict)  # that the reward is the sum of, if it is

    @property
    def doc_ids(self) -> frozenset[str]:
        """Of all documents that it retrieved."""
        return frozenset(doc for turn in self.turns for doc in turn.doc_ids)

    @property
    def num_actions(self) -> int:
        """N, the number of sampled (trainable) tokens."""
        return sum(len(turn.action_ids) for turn in self.turns)

    @property
    def num_tokens(self) -> int:
        """Length of the whole sequence: prompt, actions and observations."""
        return len(self.prompt_ids) + sum(len(t.action_ids) + len(t.observation_ids) for t in self.turns)


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one question: the unit of advantage, of sharding and of transport."""

    question: Question
    trajectories: tuple[Trajectory, ...]

    @property
    def doc_ids(self) -> frozenset[str]:
        """Of all documents that its trajectories retrieved."""
        return frozenset().union(*(trajectory.doc_ids for trajectory in self.trajectories))
