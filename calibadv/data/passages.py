"""The text and the identity of a passage: what makes the same passage the same in a corpus and in a question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def passage_id(title: str, text: str) -> str:
    """The id of a passage that has none of its own: 16 hex digits of its title and text, white space squeezed.

    The question loader gives gold passages the same ids.
    """
    squeezed = "\n".join(" ".join(part.split()) for part in (title, text))
    return hashlib.blake2b(squeezed.encode("utf-8", "replace"), digest_size=8).hexdigest()


def join_sentences(sentences: Sequence[str]) -> str:
    """One passage from its sentences: HotpotQA's begin with a blank, 2WikiMultiHopQA's do not."""
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip())
