"""The search app for `serve run` and `serve deploy`: `serve/search.yaml` names `serve.builder:search_app`."""

# No `from __future__ import annotations` here: Serve looks at the class of the builder's argument.

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from ray.serve import Application

from calibadv.search.faiss_index import IndexOptions
from calibadv.search.limits import SearchLimits
from calibadv.search.settings import SearchSettings
from serve.application import SearchAppOptions, search_application

_DEFAULTS = SearchSettings()
_LIMITS = SearchLimits()


class SearchArgs(BaseModel):
    """The `args` of the config file. Unknown keys are refused; defaults are `SearchSettings`' own.

    Paths must be there on every node, absolute for `serve deploy`. Host and port are Serve's `http_options`; the token
    is in the environment variable that `token_env` names, never here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str
    cache_dir: str = ".cache/search"
    retriever: Literal["dense", "bm25", "hybrid"] = "dense"
    encoder: str = _DEFAULTS.encoder
    query_prefix: str = ""
    passage_prefix: str = ""
    max_tokens: int = _DEFAULTS.max_tokens
    index: Literal["flat", "fp16", "hnsw", "ivfpq"] = "flat"
    index_options: dict[str, int] = Field(default_factory=dict)  # of IndexOptions, e.g. {ivf_probes: 128}
    faiss_index: str = ""
    reranker: Literal["late", "cross", "none"] = "late"
    late_scores: Literal["weighted", "colbert"] = "weighted"
    tokens: Literal["words", "unspaced"] = "words"
    cross_encoder: str = _DEFAULTS.cross_encoder
    top_k_retrieve: int = _DEFAULTS.top_k_retrieve
    top_k: int = _DEFAULTS.top_k
    batch_size: int = _DEFAULTS.batch_size
    threads: int | None = _DEFAULTS.threads
    device: str = _DEFAULTS.device
    cache_size: int = _DEFAULTS.cache_size
    max_query_chars: int = _LIMITS.max_query_chars
    max_queries: int = _LIMITS.max_queries
    max_top_k: int = _LIMITS.max_top_k
    replicas: int = 1
    num_cpus: float = 0.5
    num_gpus: float = 0.0
    shards: int = 1
    shard_replicas: int = 1
    shard_cpus: float = 1.0
    shard_gpus: float = 0.0
    token_env: str = ""

    def settings(self) -> SearchSettings:
        """What it answers. Raises `ValueError` as `SearchSettings` and `IndexOptions` do."""
        try:
            index = IndexOptions(kind=self.index, **self.index_options)
        except TypeError as error:
            raise ValueError(f"index_options = {self.index_options}: {error}; see IndexOptions") from None
        limits = SearchLimits(self.max_query_chars, self.max_queries, self.max_top_k)
        return SearchSettings(index=index, limits=limits, **self._those_of(SearchSettings, "index", "limits"))

    def options(self) -> SearchAppOptions:
        """How it runs."""
        return SearchAppOptions(**self._those_of(SearchAppOptions))

    def _those_of(self, kind: Any, *but: str) -> dict[str, Any]:
        names = set(kind.__dataclass_fields__) & set(type(self).model_fields) - set(but)
        return {name: getattr(self, name) for name in names}


def search_app(args: SearchArgs) -> Application:
    """The application that the config file describes."""
    return search_application(args.settings(), args.corpus, args.cache_dir, args.options())
