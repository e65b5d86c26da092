"""From settings and documents to a search pipeline: the one place that knows every retriever and reranker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from calibadv.search.bm25 import Bm25Index
from calibadv.search.embeddings import CorpusEmbeddings, load_or_embed
from calibadv.search.encoder import Encoder, TextEncoder
from calibadv.search.index import DenseIndex, Nearest, Retriever, flat, from_file
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.query_memory import RememberedQueries
from calibadv.search.rerank import CrossEncoder, LateInteraction, NoReranker, Reranker
from calibadv.search.settings import SearchSettings
from calibadv.types import Document


def build_pipeline(
    documents: Sequence[Document],
    settings: SearchSettings,
    cache_dir: str | Path,
    encoder: TextEncoder | None = None,
) -> SearchPipeline:
    """A pipeline ready to answer. The first build embeds the corpus; later ones read it from `cache_dir`.

    `encoder` takes the place of the one `settings` names (tests; several pipelines that share one model).
    Raises `ValueError` for an empty corpus, for two documents of one id, and as `SearchSettings` and `from_file` do.
    """
    _check_corpus(documents)
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if encoder is None and (settings.retriever == "dense" or settings.reranker == "late"):
        encoder = _encoder(settings)
    # Retrieval and late interaction ask for the same queries' vectors: the second time they are remembered.
    queries_once = None if encoder is None else RememberedQueries(encoder)
    embeddings = None
    if queries_once is not None and (settings.reranker == "late" or not settings.faiss_index):
        embeddings = load_or_embed(documents, queries_once, folder, tokens=settings.reranker == "late")
    return SearchPipeline(
        _retriever(documents, settings, folder, queries_once, embeddings),
        _reranker(documents, settings, queries_once, embeddings),
        top_k_retrieve=settings.top_k_retrieve,
        top_k=settings.top_k,
        limits=settings.limits,
        cache_size=settings.cache_size,
    )


def _check_corpus(documents: Sequence[Document]) -> None:
    if not documents:
        raise ValueError("the corpus has 0 documents; expected at least 1: check the corpus file")
    twice = [(doc_id, count) for doc_id, count in Counter(d.id for d in documents).most_common(1) if count > 1]
    if twice:
        raise ValueError(
            f"document id {twice[0][0]!r} occurs {twice[0][1]} times; expected unique ids: rename or drop the copies"
        )


def _encoder(settings: SearchSettings) -> Encoder:
    return Encoder(
        settings.encoder,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        max_tokens=settings.max_tokens,
        batch_size=settings.batch_size,
        threads=settings.threads,
        device=settings.device,
    )


def _retriever(
    documents: Sequence[Document],
    settings: SearchSettings,
    cache_dir: Path,
    encoder: TextEncoder | None,
    embeddings: CorpusEmbeddings | None,
) -> Retriever:
    if settings.retriever == "bm25":
        return Bm25Index(documents, cache_dir)
    assert encoder is not None
    nearest: Nearest
    if settings.faiss_index:
        nearest = from_file(Path(settings.faiss_index), len(documents), encoder.dim, settings.threads)
    else:
        assert embeddings is not None
        nearest = flat(embeddings.vectors, settings.threads)
    return DenseIndex(documents, encoder, nearest)


def _reranker(
    documents: Sequence[Document],
    settings: SearchSettings,
    encoder: TextEncoder | None,
    embeddings: CorpusEmbeddings | None,
) -> Reranker:
    if settings.reranker == "none":
        return NoReranker()
    if settings.reranker == "cross":
        return CrossEncoder(settings.cross_encoder, batch_size=settings.batch_size, device=settings.device)
    assert encoder is not None
    assert embeddings is not None
    return LateInteraction(documents, encoder, embeddings)
