"""Which retriever, reranker and encoder make a search pipeline. Defaults: CalibAdv's top 20 -> rerank -> top 3."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from calibadv.search.limits import SearchLimits

RETRIEVERS = ("dense", "bm25")
RERANKERS = ("late", "cross", "none")
PACKAGED_ENCODERS = ("minilm",)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Everything that decides what a query finds. Raises `ValueError` for an unknown name, naming the nearest one.

    `encoder` is "minilm" (all-MiniLM-L6-v2, installed with this project), a model folder, or a hub name `owner/model`.
    E5 wants `query_prefix="query: "`, `passage_prefix="passage: "`. `faiss_index` is a ready FAISS file whose row i is
    document i of the corpus (Search-R1 ships one for Wikipedia); without it the corpus is embedded once and cached.
    """

    retriever: str = "dense"
    reranker: str = "late"
    encoder: str = "minilm"
    cross_encoder: str = "cross-encoder/ms-marco-MiniLM-L12-v2"
    top_k_retrieve: int = 20  # CalibAdv, experimental setup
    top_k: int = 3  # CalibAdv, experimental setup
    query_prefix: str = ""
    passage_prefix: str = ""
    max_tokens: int = 256  # of an encoded query or passage; the rest of it is not seen
    batch_size: int = 32  # texts of one forward
    threads: int | None = 1  # of torch and FAISS; None leaves the process's setting
    device: str = "cpu"  # of the encoder and the cross-encoder, e.g. "cuda:0"
    cache_size: int = 10_000  # remembered answers; 0 turns the query cache off
    faiss_index: str = ""
    limits: SearchLimits = field(default_factory=SearchLimits)

    def __post_init__(self) -> None:
        _one_of("retriever", self.retriever, RETRIEVERS)
        _one_of("reranker", self.reranker, RERANKERS)
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
