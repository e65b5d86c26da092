"""A second, finer look at the retrieved documents: late interaction, a cross-encoder, or none.

Array legend: Q query tokens, M tokens of all candidates one after the other, C candidates, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calibadv.model_source import loadable
from calibadv.search.embeddings import CorpusEmbeddings
from calibadv.search.encoder import TextEncoder, passage_text
from calibadv.search.index import best_first
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, FloatArray, IntArray

_PAIR_TOKENS = 512  # of query and passage together; what BERT's positions allow


class Reranker(Protocol):
    """Each query's candidates in a better order, best first, with the reranker's score. Drops and adds none."""

    def rerank(self, queries: Sequence[str], candidates: Sequence[Sequence[Document]]) -> list[list[Document]]: ...


class NoReranker:
    """Leaves the retriever's order and scores."""

    def rerank(self, queries: Sequence[str], candidates: Sequence[Sequence[Document]]) -> list[list[Document]]:
        """The candidates as they came."""
        assert len(queries) == len(candidates)
        return [list(documents) for documents in candidates]


class LateInteraction:
    """MaxSim over the encoder's token vectors (ColBERT, Khattab & Zaharia 2020, eq. 3), those of documents stored.

    `scores` "colbert" is that mean over query tokens alone. "weighted" is for encoders whose tokens were never trained
    to be compared (MiniLM, E5): a query token counts as much as it is rare in the corpus (`rarity`), so that "the" and
    [CLS] hardly count, and the mean of MaxSim and the pooled vectors' cosine, what they were trained for, is the score.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        encoder: TextEncoder,
        embeddings: CorpusEmbeddings,
        scores: str = "weighted",
    ) -> None:
        assert embeddings.tokens is not None
        assert embeddings.starts is not None
        assert embeddings.frequencies is not None
        self._encoder = encoder
        self._weighted = scores == "weighted"
        self._vectors_ND = np.asarray(embeddings.vectors)
        self._tokens_MD = np.asarray(embeddings.tokens)  # the same map, without memmap's cost a slice
        self._starts_N1 = embeddings.starts
        self._frequencies_V = embeddings.frequencies
        stored = getattr(documents, "row_of", None)  # a corpus store looks up without a map in memory
        self._row_of: Callable[[str], int] = stored or {d.id: row for row, d in enumerate(documents)}.__getitem__

    def rerank(self, queries: Sequence[str], candidates: Sequence[Sequence[Document]]) -> list[list[Document]]:
        """Candidates by their score in [-1, 1]. Raises `KeyError` for a document that is not of the corpus."""
        encoded = self._encoder.encode_queries(queries)
        ranked = []
        for query, documents in enumerate(candidates):
            ids_Q = encoded.token_ids[query] if encoded.token_ids else None
            ranked.append(
                _reordered(documents, self._score(encoded.vectors[query], encoded.tokens[query], ids_Q, documents))
            )
        return ranked

    def _score(
        self, vector_D: FloatArray, query_QD: FloatArray, ids_Q: IntArray | None, documents: Sequence[Document]
    ) -> FloatArray:
        if not documents:
            return np.zeros(0, dtype=np.float32)
        rows = [self._row_of(document.id) for document in documents]
        pieces = [self._tokens_MD[self._starts_N1[row] : self._starts_N1[row + 1]] for row in rows]
        lengths_C = np.asarray([len(piece) for piece in pieces], dtype=np.int64)
        tokens_MD = np.concatenate(pieces).astype(np.float32)
        if not self._weighted:
            return max_sim(query_QD, tokens_MD, lengths_C)
        weights_Q = None if ids_Q is None else rarity(ids_Q, self._frequencies_V, len(self._vectors_ND))
        cosines_C = self._vectors_ND[rows] @ vector_D
        scores_C: FloatArray = np.mean([max_sim(query_QD, tokens_MD, lengths_C, weights_Q), cosines_C], axis=0)
        return scores_C


def max_sim(
    query_QD: FloatArray, documents_MD: FloatArray, lengths_C: IntArray, weights_Q: FloatArray | None = None
) -> FloatArray:
    """Weighted mean over query tokens of the best cosine with any token of the document. Shape [C].

    (1/sum w) * sum_i w_i max_j q_i . d_j: without weights ColBERT's sum divided by Q, so that scores of different
    queries share a scale. A query without tokens scores 0 everywhere; every document has at least one token.
    """
    if not len(query_QD):
        return np.zeros(len(lengths_C), dtype=np.float32)
    starts_C = np.concatenate(([0], np.cumsum(lengths_C)[:-1]))
    best_CQ = np.maximum.reduceat(documents_MD @ query_QD.T, starts_C, axis=0)
    scores_C: FloatArray = np.average(best_CQ, axis=1, weights=weights_Q).astype(np.float32)
    return scores_C


def rarity(ids_Q: IntArray, frequencies_V: IntArray, documents: int) -> FloatArray:
    """BM25's inverse document frequency of each token, ln(1 + (N - n + 0.5) / (n + 0.5)), in nats. Shape [Q].

    n of the N documents hold the token (0 for an id that none has). Never 0: a token of every document keeps about
    0.5 / N. Source: Robertson & Zaragoza 2009, section 3.1, in Lucene's variant, which has no negative values.
    """
    padded_V = np.append(frequencies_V, 0)
    held_Q = padded_V[np.minimum(ids_Q, len(frequencies_V))]
    weights_Q: FloatArray = np.log1p((documents - held_Q + 0.5) / (held_Q + 0.5)).astype(np.float32)
    return weights_Q


class CrossEncoder:
    """A sentence-transformers cross-encoder: reads query and passage together. Its scale is the model's."""

    def __init__(self, config: SearchConfig) -> None:
        import sentence_transformers

        place = loadable(config.cross_encoder)
        self._model: Any = sentence_transformers.CrossEncoder(
            place,
            max_length=_PAIR_TOKENS,
            device=config.device,
            trust_remote_code=False,
            local_files_only=Path(place).is_dir(),
        )
        self._batch_size = config.batch_size

    def rerank(self, queries: Sequence[str], candidates: Sequence[Sequence[Document]]) -> list[list[Document]]:
        """Candidates by the model's score; the pairs of all queries share its batches."""
        pairs = [
            (query, passage_text(document))
            for query, documents in zip(queries, candidates, strict=True)
            for document in documents
        ]
        if not pairs:
            return [[] for _ in queries]
        scores = np.asarray(self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False))
        ends = np.cumsum([len(documents) for documents in candidates])
        return [
            _reordered(documents, scores_C)
            for documents, scores_C in zip(candidates, np.split(scores, ends[:-1]), strict=True)
        ]


def _reordered(documents: Sequence[Document], scores_C: FloatArray) -> list[Document]:
    # Ties keep the retriever's order: best_first puts the lower row first.
    return [replace(documents[i], score=float(scores_C[i])) for i in best_first(scores_C, len(documents))]
