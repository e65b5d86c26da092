"""Fakes of the two edges of a rollout: an engine that replays a script, a search that answers from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import pre_tokenizers

from calibadv.pocket.tokenizer import build_tokenizer
from calibadv.rollout.protocols import Generation, Sampling, SearchFailed, StopReason
from calibadv.types import Document, IntArray

TOKENIZER = build_tokenizer()
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

ADA = Document("ada", "Ada (engineer)", "Ada was born in Oslo.")


def spelled(text: str) -> IntArray:
    """Ids of `text` byte by byte, so that encoding their text again would give other ids."""
    return np.array(TOKENIZER.convert_tokens_to_ids(list(_BYTES.pre_tokenize_str(text)[0][0])), dtype=np.int64)


@dataclass
class Script:
    """A `GenerateFn` that says its lines in turn and remembers what it was asked; a line may be cut by LENGTH."""

    lines: Sequence[str | tuple[str, StopReason]]
    contexts: list[IntArray] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        line = self.lines[len(self.contexts)]
        text, stop = line if isinstance(line, tuple) else (line, StopReason.TAG)
        self.contexts.append(prompt_ids)
        self.samplings.append(sampling)
        ids = spelled(text)
        return Generation(ids, -np.arange(1, len(ids) + 1, dtype=np.float32), stop)


@dataclass
class Library:
    """A `SearchFn`: `documents` for any query, after it has failed as often as `failures` says."""

    documents: tuple[Document, ...] = (ADA,)
    failures: int = 0
    queries: list[str] = field(default_factory=list)

    async def __call__(self, query: str) -> tuple[Document, ...]:
        self.queries.append(query)
        if self.failures:
            self.failures -= 1
            raise SearchFailed("no answer")
        return self.documents
