"""What a rollout needs from outside: a dialogue, a function that generates, one that searches, and tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from calibadv.types import Document, FloatArray, IntArray, Turn, TurnKind

SEARCH = "search"
"""The tool whose results are documents."""


class StopReason(StrEnum):
    """Why an engine stopped: a stop string was completed, end of sequence was sampled, or `max_tokens` was reached."""

    TAG = "tag"
    EOS = "eos"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample one turn. `temperature` 0 is greedy; equal seeds give equal tokens on one engine."""

    max_tokens: int
    temperature: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ("</search>", "</answer>")
    top_p: float = 1.0  # only the fewest most likely tokens that have so much probability at the temperature; 1: all
    heard: Callable[[Sequence[int]], None] | None = field(default=None, compare=False)
    """Is told of tokens as they are sampled, all but the turn's last, in the engine's thread, without waiting.

    An engine may leave it out. It changes nothing of what is sampled.
    """


@dataclass(frozen=True, slots=True)
class Generation:
    """The tokens of one turn, the stop string's and a sampled end-of-sequence token included.

    `logprobs` [L], nats, are of all tokens, whatever `Sampling.top_p` says. They are of temperature 1, or, by an engine
    that was made with `tempered_logprobs`, of the sampling's temperature (greedy: of 1; vLLM then needs `top_p` 1).
    """

    ids: IntArray  # [L]
    logprobs: FloatArray  # [L]
    stop: StopReason


class EngineDied(RuntimeError):
    """The engine itself failed, so that no request can be answered again: start a new one."""


class NoRoom(ValueError):
    """An observation is over its limit even where every result in it is empty."""


class SearchFailed(Exception):
    """The search tool did not answer after all retries: the environment's fault, never the policy's."""


class ToolFailed(Exception):
    """A tool of the user's did not answer after all retries: the environment's fault too."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the policy calls, with its arguments as it wrote them."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What a call is answered with: documents of a search, or a text of at most `max_tokens` tokens."""

    documents: tuple[Document, ...] = ()
    text: str | None = None
    max_tokens: int | None = None
    tool: str = SEARCH


@dataclass(frozen=True, slots=True)
class Said:
    """A turn as its dialogue reads it."""

    kind: TurnKind
    text: str
    calls: tuple[Call, ...] = ()
    answer: str | None = None
    answer_characters: tuple[int, int] | None = None  # where the answer stands in `text`, its tags included

    @property
    def query(self) -> str | None:
        """What is searched for; of several searches all, with a semicolon between them. None: nothing."""
        queries = [query_of(call) for call in self.calls]
        return "; ".join(query for query in queries if query) if self.kind is TurnKind.SEARCH else None


def query_of(call: Call) -> str | None:
    """The query of a call that is a search, without white space around it; None for any other call."""
    query = call.arguments.get("query")
    return query.strip() or None if call.tool == SEARCH and isinstance(query, str) else None


@dataclass(frozen=True, slots=True)
class Sampled:
    """A rollout's news: the turn of this number has been sampled, and its calls are next."""

    index: int
    said: Said


@dataclass(frozen=True, slots=True)
class Answered:
    """A rollout's news: the calls of the turn of this number have their results, as many."""

    index: int
    calls: tuple[Call, ...]
    results: tuple[Result, ...]


Step = Sampled | Answered


class GenerateFn(Protocol):
    """Token ids in, sampled token ids out."""

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation: ...


class SearchFn(Protocol):
    """A query in, ranked documents out, best first. Raises `SearchFailed`."""

    async def __call__(self, query: str) -> tuple[Document, ...]: ...


class ToolFn(Protocol):
    """The arguments of a call in, what the policy is told out. Raises `ToolFailed`."""

    async def __call__(self, arguments: Mapping[str, Any]) -> Result: ...


class Dialogue(Protocol):
    """How a policy is spoken to, as token ids, and how what it samples is read (`rollout.dialogue`).

    What was sampled is never encoded again: only prompts and observations pass through a tokenizer.
    """

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a turn, beside the end of sequence."""

    def prompt_ids(self, question: str) -> IntArray:
        """[P]"""

    def said(self, generation: Generation) -> Said:
        """A sampled turn, read."""

    def observed(self, results: Sequence[Result], action_ids: IntArray, max_tokens: int) -> IntArray:
        """[O <= max_tokens] What stands behind the turn `action_ids`, up to where the next begins. Raises `NoRoom`."""

    def corrected(self, action_ids: IntArray, max_tokens: int) -> IntArray:
        """[O] The same behind a void turn where the rollout goes on."""

    def format_reward(self, turns: Sequence[Turn], *, require_search: bool) -> float:
        """1 for turns that are well-formed, else 0."""

    def text(self, ids: IntArray) -> str:
        """For reading and parsing only, never encoded again."""
