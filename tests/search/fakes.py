"""A five-line encoder whose vectors can be computed by hand, and a small corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from calibadv.search.encoder import Encoded
from calibadv.types import Document

CORPUS = (
    Document("d0", "Paris", "Paris is the capital of France."),
    Document("d1", "Berlin", "Berlin is the capital of Germany."),
    Document("d2", "Quiet River", "Quiet River is a 1998 film directed by Anna Berg."),
    Document("d3", "Anna Berg", "Anna Berg is a film director born in Oslo."),
    Document("d4", "Oslo", "Oslo is a harbour town in Norway."),
)


class WordEncoder:
    """One axis a word (by hash): a text is the unit sum of its words, its tokens are its words. Counts its work."""

    identity = "words"
    dim = 256
    max_tokens = 256

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.passages: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        self.queries += texts
        return self._encode(texts)

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        self.passages += texts
        encoded = self._encode(texts)
        return encoded if tokens else Encoded(encoded.vectors, ())

    def _encode(self, texts: Sequence[str]) -> Encoded:
        axes = np.eye(self.dim, dtype=np.float32)
        ids = tuple(np.array([_axis(w, self.dim) for w in text.lower().split()] or [0]) for text in texts)
        tokens = tuple(axes[ids_T] for ids_T in ids)
        vectors = [t.sum(axis=0) / np.linalg.norm(t.sum(axis=0)) for t in tokens]
        return Encoded(np.asarray(vectors, dtype=np.float32).reshape(-1, self.dim), tokens, ids)


def _axis(word: str, dim: int) -> int:
    return int.from_bytes(hashlib.sha256(word.strip(".?!").encode("utf-8", "replace")).digest()[:4], "little") % dim
