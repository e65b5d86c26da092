"""What a rollout needs from outside: a dialogue's words as tokens, a function that generates and one that searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from calibadv.types import Document, FloatArray, IntArray


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


@dataclass(frozen=True, slots=True)
class Generation:
    """The tokens of one turn, the stop string's and a sampled end-of-sequence token included.

    `logprobs` [L], nats, of the *raw* distribution: all tokens at temperature 1, whatever `Sampling` says of either.
    """

    ids: IntArray  # [L]
    logprobs: FloatArray  # [L]
    stop: StopReason


class SearchFailed(Exception):
    """The search tool did not answer after all retries: the environment's fault, never the policy's."""


class GenerateFn(Protocol):
    """Token ids in, sampled token ids out."""

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation: ...


class SearchFn(Protocol):
    """A query in, ranked documents out, best first. Raises `SearchFailed`."""

    async def __call__(self, query: str) -> tuple[Document, ...]: ...


class DialogueFormat(Protocol):
    """A dialogue's prompts and observations as token ids, and what was sampled as text (`rollout.dialogue`)."""

    @property
    def prefill(self) -> str:
        """Ends the prompt and every observation; never trained."""

    def prompt_ids(self, question: str) -> IntArray:
        """[P]"""

    def observation_ids(self, documents: Sequence[Document], max_tokens: int) -> IntArray:
        """[O <= max_tokens]"""

    def retry_ids(self) -> IntArray:
        """What a void turn is answered with where the rollout goes on."""

    def text(self, ids: IntArray) -> str:
        """For reading and parsing only, never encoded again."""
