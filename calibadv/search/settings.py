"""Which retriever, reranker and encoder make a search pipeline. Defaults: CalibAdv's top 20 -> rerank -> top 3."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from calibadv.search.faiss_index import IndexOptions
from calibadv.search.limits import SearchLimits
from calibadv.types import TokenUnit

RETRIEVERS = ("dense", "bm25", "hybrid")
RERANKERS = ("late", "cross", "none")
LATE_SCORES = ("weighted", "colbert")
TOKENS = tuple(map(str, TokenUnit))
PACKAGED_ENCODERS = ("minilm",)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Everything that decides what a query finds. Raises `ValueError` for an unknown name, naming the nearest one.

    "hybrid" fuses dense and BM25 rankings (`fusion.py`). `encoder` is "minilm" (all-MiniLM-L6-v2, installed with this
    project), a model folder, or a hub name `owner/model`; an empty prefix is the encoder's own (`default_prefixes`: E5
    has one). `index` is the FAISS index that is built and cached. `faiss_index` is a ready one: a folder that
    workflows/build_index.py made, or a FAISS file whose row i is document i of the corpus (Search-R1 ships one).
    """

    retriever: str = "dense"
    reranker: str = "late"
    encoder: str = "minilm"
    tokens: str = "words"  # of BM25; "unspaced": each character of Han, Kana, Thai, … is a word
    late_scores: str = "weighted"  # or "colbert": MaxSim alone, every query token alike
    cross_encoder: str = "cross-encoder/ms-marco-MiniLM-L12-v2"
    top_k_retrieve: int = 20  # CalibAdv, experimental setup
    top_k: int = 3  # CalibAdv, experimental setup
    query_prefix: str = ""
    passage_prefix: str = ""
    max_tokens: int = 256  # of an encoded query or passage; the rest of it is not seen
    batch_size: int = 32  # texts of one forward
    threads: int | None = 1  # of torch and FAISS; None leaves the process's setting
    device: str = "cpu"  # of encoder, cross-encoder and, where FAISS can, index; e.g. "cuda:0"
    cache_size: int = 10_000  # remembered answers; 0 turns the query cache off
    index: IndexOptions = field(default_factory=IndexOptions)
    faiss_index: str = ""
    limits: SearchLimits = field(default_factory=SearchLimits)

    def __post_init__(self) -> None:
        _one_of("retriever", self.retriever, RETRIEVERS)
        _one_of("reranker", self.reranker, RERANKERS)
        _one_of("tokens", self.tokens, TOKENS)
        _one_of("late_scores", self.late_scores, LATE_SCORES)
        if "/" not in self.encoder and not Path(self.encoder).is_dir():
            _one_of("encoder", self.encoder, PACKAGED_ENCODERS, "or a model folder, or a hub name owner/model")
        for name in ("max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; expected at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads = {self.threads}; expected at least 1, or None for the process's own setting")
        if self.cache_size < 0:
            raise ValueError(f"cache_size = {self.cache_size}; expected at least 0 (0 turns the query cache off)")
        self.limits.check_top_k(self.top_k_retrieve, self.top_k)


def _one_of(name: str, value: str, allowed: tuple[str, ...], also: str = "") -> None:
    if value in allowed:
        return
    nearest = difflib.get_close_matches(value, allowed, n=1, cutoff=0.0)
    names = ", ".join(repr(choice) for choice in allowed)
    raise ValueError(f"{name} = {value!r} is not known; expected one of {names} {also}".rstrip() + _hint(nearest))


def _hint(nearest: list[str]) -> str:
    return f". Did you mean {nearest[0]!r}?" if nearest else ""
