"""An encoder that remembers its last queries, so that retrieval and late interaction share one forward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibadv.search.encoder import Encoded, TextEncoder
from calibadv.search.lru import LeastRecentlyUsed


class RememberedQueries:
    """`encoder` with its last queries kept: a query that is asked for again costs no forward. Passages pass through.

    256 queries of the longest kind are 100 MB; a larger batch is still right, but what was forgotten of it is encoded
    twice. `forwards` counts the query texts that were really encoded.
    """

    def __init__(self, encoder: TextEncoder, capacity: int = 256) -> None:
        self._encoder = encoder
        self._memory: LeastRecentlyUsed[str, Encoded] = LeastRecentlyUsed(capacity)
        self.forwards = 0

    @property
    def identity(self) -> str:
        """The wrapped encoder's: remembering changes no vector."""
        return self._encoder.identity

    @property
    def dim(self) -> int:
        """D of the wrapped encoder."""
        return self._encoder.dim

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """As the wrapped encoder; equal texts in one call are encoded once."""
        known = {text: self._memory.get(text) for text in dict.fromkeys(texts)}
        new = [text for text, value in known.items() if value is None]
        if new:
            fresh = self._encoder.encode_queries(new)
            self.forwards += len(new)
            for row, text in enumerate(new):
                encoded = Encoded(
                    fresh.vectors[row : row + 1], fresh.tokens[row : row + 1], fresh.token_ids[row : row + 1]
                )
                known[text] = encoded
                self._memory.put(text, encoded)
        ones = [one for text in texts if (one := known[text]) is not None]
        assert len(ones) == len(texts)
        vectors = [one.vectors for one in ones] or [np.zeros((0, self.dim), dtype=np.float32)]
        return Encoded(
            vectors=np.concatenate(vectors),
            tokens=tuple(tokens_TD for one in ones for tokens_TD in one.tokens),
            token_ids=tuple(ids_T for one in ones for ids_T in one.token_ids),
        )

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        """As the wrapped encoder; nothing is remembered."""
        return self._encoder.encode_passages(texts, tokens)
