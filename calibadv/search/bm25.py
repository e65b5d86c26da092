"""Lexical retrieval: BM25 (bm25s) behind the `Retriever` protocol; needs no model."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibadv.files import once_at_a_time, whole_folder
from calibadv.search.embeddings import corpus_identity
from calibadv.search.encoder import passage_text
from calibadv.search.index import best_first
from calibadv.types import Document, TokenUnit
from calibadv.unspaced import UNSPACED, spaced, word_pattern


class Bm25Index:
    """BM25 over title and text (Lucene's variant, k1 = 1.5, b = 0.75, English stop words). Cached in `cache_dir`.

    Characters are composed (NFC), and a word keeps its combining marks. With `tokens` "unspaced" every character of a
    script without blanks between words is a word (`calibadv.unspaced`).
    """

    def __init__(self, documents: Sequence[Document], cache_dir: Path, tokens: str = "words") -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing it has set it to DEBUG
        self._documents, self._tokens = documents, TokenUnit(tokens)
        words = f"NFC|{_pattern(self._tokens)}"  # another Python may know more marks
        key = hashlib.sha256(f"{corpus_identity(documents)}|{words}".encode()).hexdigest()[:24]
        folder = cache_dir / f"bm25-{key}"
        with once_at_a_time(folder):
            if not folder.is_dir():
                index = bm25s.BM25()
                texts = [passage_text(document) for document in documents]
                index.index(_words(texts, self._tokens), show_progress=False)
                with whole_folder(folder) as partial:
                    index.save(str(partial), show_progress=False)
        self._index = bm25s.BM25.load(str(folder), mmap=True)

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        """At most `k` documents that share a word with the query, best first; none when no document does."""
        return [self._search_one(words, k) for words in _words(queries, self._tokens)]

    def _search_one(self, words: list[str], k: int) -> list[Document]:
        known = [word for word in words if word in self._index.vocab_dict]
        if not known:
            return []
        scores_N = np.asarray(self._index.get_scores(known))
        rows = best_first(scores_N, k)
        return [replace(self._documents[row], score=float(scores_N[row])) for row in rows if scores_N[row] > 0]


def _pattern(tokens: TokenUnit) -> str:
    """Of a word: bm25s' own drops those of one character, and with them "Apollo 8"'s 8."""
    # Of `spaced` text no run goes on into another script.
    return word_pattern() if tokens == TokenUnit.WORDS else f"{UNSPACED.pattern}|{word_pattern()}"


def _words(texts: Sequence[str], tokens: TokenUnit) -> list[list[str]]:
    import bm25s

    # One text a call would build the stop-word list each time; no text at all is refused by bm25s.
    if not texts:
        return []
    words: list[list[str]] = bm25s.tokenize(
        [unicodedata.normalize("NFC", text) if tokens == TokenUnit.WORDS else spaced(text) for text in texts],
        token_pattern=_pattern(tokens),
        stopwords="en",
        return_ids=False,
        show_progress=False,
    )
    return words
