"""From settings and documents to a search pipeline: the one place that knows every retriever and reranker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from calibadv.search.bm25 import Bm25Index
from calibadv.search.embeddings import corpus_identity, load_or_embed
from calibadv.search.encoder import Encoder, RememberedQueries, TextEncoder, prefixes
from calibadv.search.fusion import HybridRetriever
from calibadv.search.index import DenseIndex, Nearest, Retriever, flat
from calibadv.search.manifest import Origin
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.rerank import CrossEncoder, LateInteraction, NoReranker, Reranker
from calibadv.search.settings import SearchConfig
from calibadv.search.stored_index import from_file, load_or_build, open_index
from calibadv.types import Document, FloatArray


def build_pipeline(
    documents: Sequence[Document],
    config: SearchConfig,
    cache_dir: str | Path,
    encoder: TextEncoder | None = None,
    nearest: Nearest | None = None,
) -> SearchPipeline:
    """A pipeline ready to answer. The first build embeds the corpus; later ones read it from `cache_dir`.

    `encoder` takes the place of the one `config` names (tests; several pipelines that share one model), `nearest` of
    the index (its pieces may be elsewhere). Raises `ValueError` for an empty corpus, for two documents of one id, for a
    ready index that does not fit, and as `SearchConfig` and `load_or_build` do.
    """
    check_corpus(documents)
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # A model that cannot be loaded is known before the corpus is embedded.
    reranker: Reranker | None = CrossEncoder(config) if config.reranker == "cross" else None
    if encoder is None and (config.retriever != "bm25" or config.reranker == "late"):
        encoder = Encoder(config)
    # Retrieval and late interaction ask for the same queries' vectors: the second time they are remembered.
    queries_once = None if encoder is None else RememberedQueries(encoder)
    if queries_once is not None and config.reranker == "late":
        embeddings = load_or_embed(documents, queries_once, folder, tokens=True)
        reranker = LateInteraction(documents, queries_once, embeddings, config.late_scores)
    retriever = _retriever(documents, config, folder, queries_once, nearest)
    return SearchPipeline(retriever, reranker or NoReranker(), config)


def origin_of(documents: Sequence[Document], config: SearchConfig, encoder: TextEncoder) -> Origin:
    """What the vectors of these documents by this encoder are made of, for the manifest of an index."""
    query_prefix, passage_prefix = prefixes(config)
    return Origin(
        corpus=corpus_identity(documents),
        documents=len(documents),
        encoder=config.encoder,
        identity=encoder.identity,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_tokens=config.max_tokens,
        dim=encoder.dim,
    )


def check_corpus(documents: Sequence[Document]) -> None:
    """Raises `ValueError` for an empty corpus and for two documents of one id."""
    if not documents:
        raise ValueError("the corpus has 0 documents; expected at least 1: check the corpus file")
    if isinstance(getattr(documents, "fingerprint", None), str):
        return  # a corpus store was checked when it was built; counting 21 million ids would take gigabytes
    twice = [(doc_id, count) for doc_id, count in Counter(d.id for d in documents).most_common(1) if count > 1]
    if twice:
        raise ValueError(
            f"document id {twice[0][0]!r} occurs {twice[0][1]} times; expected unique ids: rename or drop the copies"
        )


def _retriever(
    documents: Sequence[Document],
    config: SearchConfig,
    cache_dir: Path,
    encoder: TextEncoder | None,
    nearest: Nearest | None,
) -> Retriever:
    if config.retriever == "bm25":
        return Bm25Index(documents, cache_dir, config.tokens)
    assert encoder is not None
    dense = DenseIndex(documents, encoder, nearest or _nearest(documents, config, cache_dir, encoder))
    if config.retriever == "dense":
        return dense
    return HybridRetriever([dense, Bm25Index(documents, cache_dir, config.tokens)])


def _nearest(documents: Sequence[Document], config: SearchConfig, cache_dir: Path, encoder: TextEncoder) -> Nearest:
    if config.faiss_index:
        ready = Path(config.faiss_index)
        origin = origin_of(documents, config, encoder)
        if ready.is_dir():
            return open_index(ready, origin, config)
        return from_file(ready, origin, config)

    def vectors() -> FloatArray:
        return load_or_embed(documents, encoder, cache_dir, tokens=False).vectors

    if config.index == "flat" and not config.device.startswith("cuda"):
        return flat(
            vectors(), config.threads
        )  # over the embeddings where they lie: no second copy on disk or in memory
    origin = origin_of(documents, config, encoder)
    folder = load_or_build(vectors, origin, config, cache_dir)
    return open_index(folder, origin, config)
