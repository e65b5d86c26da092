"""The one configuration of search: what a query finds, how the app runs, how rollouts ask it.

`[search]` of a recipe, `args` of a Serve config file, and the flags of build_index and of the benchmark are this class.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from calibadv.search.json_api import SHIPPED, api_of
from calibadv.search.mcp_api import mcp_api_of
from calibadv.section import Decides, Local, Means, Processes, Rollouts, Seconds, Section, Tokens, somewhere
from calibadv.sendable import sendable
from calibadv.types import TokenUnit

RetrieverName = Literal["dense", "bm25", "hybrid"]
RerankerName = Literal["late", "cross", "none"]
IndexKind = Literal["flat", "fp16", "hnsw", "ivfpq"]
RETRIEVERS, RERANKERS, KINDS = get_args(RetrieverName), get_args(RerankerName), get_args(IndexKind)
PACKAGED_ENCODERS = ("minilm",)
PGVECTOR = """\
SELECT id, title, text, 1 - (embedding <=> %(vector)s::vector) AS score
FROM documents ORDER BY embedding <=> %(vector)s::vector LIMIT %(k)s"""

Cores = Annotated[float, Field(ge=0, le=1024)]
FromCorpus = Annotated[int, Field(ge=0, le=10**7)]  # 0 lets the corpus's size decide
TopK = Annotated[int, Field(ge=1, le=10_000)]


class SearchConfig(Section):
    """Everything about search. Its top 20 -> rerank -> top 3 are the paper's (CalibAdv sec. 4.1.2)."""

    decides: ClassVar[Decides] = Decides.RESULT

    model_config = ConfigDict(use_attribute_docstrings=True)

    # ---- what a query finds ----
    retriever: RetrieverName = "dense"
    """Dense vectors, BM25's words, or "hybrid": both rankings fused by reciprocal ranks."""
    encoder: Local[str] = "minilm"
    """Of dense retrieval: "minilm" (all-MiniLM-L6-v2, installed with this project), a model folder, or a hub name
    owner/model; the paper's is intfloat/e5-base-v2."""
    query_prefix: str = ""
    """Text before each encoded query; empty = the encoder's own (E5 has one)."""
    passage_prefix: str = ""
    """Text before each encoded passage; empty = the encoder's own."""
    query_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward that encodes queries; passages are always float32. bfloat16 took 2.6 in place of 6.2 ms a query of
    64 on a CPU that multiplies it itself (Intel's AMX), and moved cosines by 0.0005 in the mean, 0.0025 at most."""
    max_tokens: Tokens = 256
    """Tokens of an encoded query or passage; the rest of it is not seen."""
    tokens: TokenUnit = TokenUnit.WORDS
    """What BM25 takes for words: "unspaced" makes each character of Han, Kana, Thai, … one (docs/retrieval.md)."""
    reranker: RerankerName = "late"
    """Second look at what was retrieved: late interaction, a cross-encoder (the paper's; from a hub), or none."""
    late_scores: Literal["weighted", "colbert"] = "weighted"
    """Score of late interaction: query tokens weighted by rarity, mixed with the cosine, or ColBERT's MaxSim alone."""
    cross_encoder: Local[str] = "cross-encoder/ms-marco-MiniLM-L12-v2"
    """Model of the reranker "cross": a folder or a hub name."""
    top_k_retrieve: TopK = 20
    """Passages that are retrieved for the reranker."""
    top_k: TopK = 3
    """Passages that a query gets."""

    # ---- the index of dense retrieval ----
    index: IndexKind = "flat"
    """Kind of index that is built and cached: exact, half precision, HNSW graph, IVF-PQ (docs/retrieval.md)."""
    faiss_index: Local[str] = ""
    """A ready index instead: a folder of workflows/build_index.py, or a FAISS file whose row i is passage i."""
    hnsw_links: int = Field(32, ge=2, le=10**4)
    """Links of a vector in an HNSW graph, built in."""
    hnsw_build: Rollouts = 200
    """Candidates looked at where a vector is linked into an HNSW graph, built in."""
    hnsw_search: Rollouts = 128
    """Candidates that a query looks at in an HNSW graph; never fewer than the passages asked for."""
    ivf_lists: FromCorpus = 0
    """Inverted lists of IVF-PQ, built in; 0 = 4 sqrt(passages), but none of fewer than 39."""
    ivf_probes: Rollouts = 64
    """Inverted lists that a query looks into."""
    pq_bytes: FromCorpus = 0
    """Bytes of a compressed vector, built in; 0 = the largest divisor of the width up to a quarter of it."""

    # ---- how it computes ----
    batch_size: Means[Rollouts] = 32
    """Texts of one forward of encoder or cross-encoder."""
    threads: Means[Processes | None] = 1
    """Threads of torch, FAISS and tokenizers in each process; none = the process's own setting."""
    device: Means[str] = "cpu"
    """Of encoder, cross-encoder and, where FAISS can, index; e.g. "cuda:0"."""
    cache_size: Means[int] = Field(10_000, ge=0, le=10**8)
    """Answers that are remembered; 0 = none."""

    # ---- what a call may ask for ----
    max_query_chars: Rollouts = 2048
    """Characters of a query: HTTP refuses a longer one, a rollout's is cut."""
    max_queries: Means[Rollouts] = 1024
    """Queries of one call; Search-R1 sends a whole rollout batch at once."""
    max_top_k: Means[TopK] = 100
    """Passages that a call may ask for."""

    # ---- the app on Ray Serve ----
    replicas: Means[Processes] = 1
    """Processes that answer."""
    num_cpus: Means[Cores] = 0.5
    """Logical CPUs of a replica."""
    num_gpus: Means[Cores] = 0.0
    """GPUs of a replica."""
    shards: Means[Processes] = 1
    """Deployments that `faiss_index` is spread over, for an index too big for one process; 1 = in the replicas."""
    shard_replicas: Means[Processes] = 1
    """Processes of each shard."""
    shard_cpus: Means[Cores] = 1.0
    """Logical CPUs of a shard's process."""
    shard_gpus: Means[Cores] = 0.0
    """GPUs of a shard's process; with none its index stays on the CPU."""
    max_batch_size: Means[Rollouts] = 32
    """Queries that a replica answers at once."""
    batch_wait_s: Means[float] = Field(0.01, ge=0, le=60)
    """Seconds that a batch waits to be filled."""
    max_ongoing_requests: Means[Rollouts] = 128
    """Queries at a replica: several batches, so that the next one is full when one ends."""
    max_queued_requests: Means[Rollouts] = 4096
    """Queries that wait at a caller, or calls by HTTP at a replica; more are refused (503) and asked again by our
    client."""
    http_host: Means[str] = "127.0.0.1"
    """Address that replicas listen on."""
    http_port: Means[int | None] = Field(None, ge=1, le=65_535)
    """Port at which every replica listens on its node; none = no HTTP: training asks by Serve handle."""

    # ---- how it is asked ----
    url: str = ""
    """A retrieval server that is up, e.g. Search-R1's: it is asked, and no app is started."""
    url_shape: Literal["search_r1", "calibadv", "searxng", "opensearch", "qdrant", "json", "pgvector"] = "search_r1"
    """Shape of requests and answers of `url`: a retrieval server's, a search engine's (opensearch is Elasticsearch's
    too), with "json" what `http` says, or, with "pgvector", a PostgreSQL that `sql` is put to."""
    http: dict[str, Any] = Field(default_factory=dict)
    """How `url` is asked and read where it is a search engine: method, parameters, headers, body, results, id, title,
    text, score (docs/extend.md), in place of those that `url_shape` has."""
    sql: str = ""
    """The statement that pgvector is asked by, which selects id, title, text and, if there is one, score:
    %(vector)s, %(query)s and %(k)s stand for the query's vector by `encoder`, the query and `top_k`
    (docs/extend.md); "" = the nearest rows of a table `documents` by the cosine of `embedding`."""
    mcp: dict[str, Any] = Field(default_factory=dict)
    """A tool of an MCP server instead: command or url, env, tool, arguments, results, id, title, text, score
    (docs/extend.md)."""
    tool: Local[str] = ""
    """A search function of your own instead, as file.py:name or package.module:name: given a query and `top_k` it
    returns documents with id, title and text, best first (docs/extend.md)."""
    token_env: Means[str] = ""
    """Environment variable with the bearer token (of a PostgreSQL the password): of `url`, or of those who ask the app
    by HTTP."""
    timeout_s: Means[Seconds] = 30.0
    """Seconds of one attempt of a rollout's query, its waiting in the replicas' queue included."""
    patience_s: Means[float] = Field(120.0, ge=0, le=7 * 86_400)
    """Seconds that a rollout's query is tried again for; then the rollout is given up (infra_failed)."""

    # ---- what is remembered of it, and how often it is asked ----
    ledger: Means[Local[str]] = ""
    """A file, on the driver's node, of everything that the engine has answered: no run asks it for that again."""
    ledger_mode: Means[Literal["record", "replay"]] = "record"
    """record: the engine is asked for what the ledger lacks. replay: it is never asked, and what is lacking is a failed
    search (infra_failed), never a score."""
    ledger_engine: Means[str] = ""
    """Your own name of the engine in the ledger, in place of its address or of the digest of `tool`'s code: while
    either changes and the answers do not."""
    call_price: Means[float] = Field(0.0, ge=0, le=10**6)
    """Price of one call of the engine, in any currency: gives the metric search/cost."""
    calls_per_second: Means[float | None] = Field(None, gt=0, le=10**6)
    """Calls of the engine that begin in a second, over all engines and hosts of the run; none = no limit."""
    concurrency: Means[Rollouts | None] = None
    """Calls of the engine in flight at a time, over all engines and hosts of the run; none = no limit."""

    @field_validator("encoder", "cross_encoder")
    @classmethod
    def _somewhere(cls, model: str) -> str:
        return somewhere(model, "a model folder or a hub name")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "/" not in self.encoder and self.encoder not in PACKAGED_ENCODERS and not Path(self.encoder).is_dir():
            (near,) = difflib.get_close_matches(self.encoder, PACKAGED_ENCODERS, n=1, cutoff=0.0)
            raise ValueError(
                f"encoder = {self.encoder!r} is not known; expected one of {PACKAGED_ENCODERS}, a model folder, "
                f"or a hub name owner/model. Did you mean {near!r}?"
            )
        self.check_top_k(self.top_k_retrieve, self.top_k)
        several = {name: value for name in ("url", "tool", "mcp") if (value := getattr(self, name))}
        if len(several) > 1:
            both = " and ".join(f"{name} = {value!r}" for name, value in several.items())
            raise ValueError(f"{both}: a search asks one of them, leave the others out")
        if self.mcp:
            mcp_api_of(self.mcp)
        self._check_sql()
        if self.url_shape in SHIPPED:
            api_of(self.url_shape, self.http)
        elif self.http:
            raise ValueError(
                f"http = {self.http!r} with url_shape = {self.url_shape!r}: expected one of {tuple(SHIPPED)}"
            )
        if not self.ledger and (self.ledger_mode == "replay" or self.ledger_engine):
            asked = (
                "ledger_mode = 'replay'" if self.ledger_mode == "replay" else f"ledger_engine = {self.ledger_engine!r}"
            )
            raise ValueError(f"{asked} without a ledger: name its file, e.g. --search.ledger ledger.sqlite")
        return self

    def _check_sql(self) -> None:
        if self.url_shape != "pgvector":
            if self.sql:
                raise ValueError(f"sql = {self.sql!r} with url_shape = {self.url_shape!r}: expected 'pgvector'")
            return
        if not self.url.startswith(("postgresql://", "postgres://")):
            raise ValueError(
                f"url = {self.url!r} with url_shape = 'pgvector': expected postgresql://USER@HOST/DATABASE"
            )
        if not ("%(vector)s" in self.statement or "%(query)s" in self.statement):
            raise ValueError("nothing of sql is the query: put %(vector)s or %(query)s into it")

    @property
    def statement(self) -> str:
        """What pgvector is asked by."""
        return self.sql or PGVECTOR

    @property
    def sql_needs_vector(self) -> bool:
        """Whether it holds the query's vector."""
        return "%(vector)s" in self.statement

    @property
    def elsewhere(self) -> bool:
        """Whether a server or a function of the user's is asked, so that no app is started."""
        return bool(self.url or self.tool or self.mcp)

    @property
    def sends_secret(self) -> bool:
        """Whether requests to `url` carry a token or a key."""
        return bool(self.token_env) or "$" in str([self.http.get(name) for name in ("headers", "parameters", "body")])

    @property
    def together(self) -> bool:
        """Whether all engines of a run ask through one process, which has the ledger and keeps the limits."""
        return bool(self.ledger or self.calls_per_second or self.concurrency or self.call_price)

    def but(self, **changes: object) -> Self:
        """These settings with some changed, validated."""
        return type(self).model_validate(self.model_dump() | changes)

    def check_queries(self, queries: Sequence[str]) -> None:
        """Raises `ValueError` for too many queries, or one that is too long."""
        self.check_count(len(queries))
        for position, query in enumerate(queries):
            if len(query) > self.max_query_chars:
                raise ValueError(
                    f"query {position} has {len(query)} characters; the limit is {self.max_query_chars}: shorten it"
                )

    def check_count(self, count: int) -> None:
        """Raises `ValueError` for more than `max_queries` queries in one call."""
        if count > self.max_queries:
            raise ValueError(f"{count} queries in one call; the limit is {self.max_queries}: send several calls")

    def check_top_k(self, top_k_retrieve: int, top_k: int) -> None:
        """Raises `ValueError` unless 1 <= top_k <= top_k_retrieve <= max_top_k."""
        if top_k_retrieve > self.max_top_k:
            raise ValueError(f"top_k_retrieve = {top_k_retrieve}; the limit is {self.max_top_k}: ask for fewer")
        if not 1 <= top_k <= top_k_retrieve:
            raise ValueError(
                f"top_k = {top_k}; expected at least 1 and at most top_k_retrieve = {top_k_retrieve}: "
                "raise top_k_retrieve or lower top_k"
            )

    def cut(self, query: str) -> str:
        """The query with white space collapsed and lone surrogates replaced, at most `max_query_chars` characters.

        A policy under training writes over-long queries; they are bad queries rather than broken calls.
        """
        # Slice twice: the first bounds the work on a megabyte of text, the second counts what is left of it.
        head = sendable(query[: 4 * self.max_query_chars])
        return " ".join(head.split())[: self.max_query_chars].rstrip()
