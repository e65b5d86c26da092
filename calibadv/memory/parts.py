"""The GPUs of a configuration: how many there are, and what each part of the run keeps on one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from calibadv.config import Config
from calibadv.data.store_layout import read_manifest
from calibadv.memory.items import (
    CONTEXT,
    CUDA_GRAPHS,
    FAISS_SCRATCH,
    Item,
    card_bytes,
    engine_items,
    index_vector_bytes,
    kv_token_bytes,
    learner_items,
    sum_bytes,
)
from calibadv.memory.shape import ModelShape, adapter_parameters, model_shape
from calibadv.search import manifest as index_manifest
from calibadv.search.models import resolve_model

NODE_GPUS = 8
WIKI_18, WIKI_18_PASSAGES = "wiki-18", 21_015_324  # the corpus that goes by this name (Karpukhin et al. 2020)


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of process: how many GPUs it takes in all, and what lies on each of them."""

    name: str
    gpus: float
    items: tuple[Item, ...]
    share: float = 1.0  # of the card that it may use
    rollout_bytes: float = 0.0  # KV cache of a full rollout; the cache takes what an engine's share leaves
    beside_bytes: float = 0.0  # what a resting learner keeps on the card while a colocated engine has its share

    @property
    def total_bytes(self) -> float:
        """What each GPU must hold."""
        return sum_bytes(self.items)

    def spare_bytes(self, card_gb: float) -> float:
        """What is left of its share on a card; negative: so many bytes are missing."""
        share = self.share * card_bytes(card_gb)
        beside = card_bytes(card_gb) - self.beside_bytes - share if self.beside_bytes else share
        return min(share - self.total_bytes, beside)

    def full_rollouts(self, card_gb: float) -> int:
        """How many rollouts of full length an engine's KV cache holds on a card; 0 for one that cannot start."""
        return max(0, 1 + int(self.spare_bytes(card_gb) // self.rollout_bytes))


def gpus_wanted(config: Config) -> float:
    """GPUs of the whole run. An engine takes `gpus_per_engine` for each of its tensor-parallel ranks.

    Colocated, each engine is alone on its GPU with a learner at most.
    """
    rollout, learner, cluster = config.rollout, config.learner, config.cluster
    if _colocated(config):
        return rollout.engines + _search_gpus(config)
    engines = rollout.engines * rollout.tensor_parallel * cluster.gpus_per_engine
    return engines + learner.learners * learner.gpus_per_learner + _search_gpus(config)


def parts_of(config: Config, shape: ModelShape) -> list[Part]:
    """The parts that have GPUs; empty for a run on CPUs. Raises ValueError for an encoder of unknown shape."""
    parts = []
    if config.cluster.gpus_per_engine > 0:
        parts.append(engine_part(config, shape))
    if config.learner.gpus_per_learner > 0:
        parts.append(learner_part(config, shape))
    return [*parts, *search_parts(config)]


def engine_part(config: Config, shape: ModelShape) -> Part:
    """An engine with room for one rollout of full length; how much more KV cache there is depends on the card."""
    rollout, gpus = config.rollout, config.cluster.gpus_per_engine
    item, ranks = weight_bytes(config), rollout.tensor_parallel
    kv_item = 1 if str(rollout.vllm.get("kv_cache_dtype", "auto")).startswith("fp8") else item
    rollout_bytes = rollout.max_tokens * kv_token_bytes(shape, kv_item, ranks)
    held = engine_items(
        shape,
        item=item,
        sequences=rollout.max_concurrent,
        tensor_parallel=ranks,
        tokens=rollout.vllm.get("max_num_batched_tokens"),
        graphs=not rollout.vllm.get("enforce_eager", False),
    )
    items = (*held, Item("KV cache of one full rollout", rollout_bytes))
    share = rollout.gpu_memory_utilization
    if _colocated(config):
        beside = sum_bytes(learner_part(config, shape).items, resting=True)
        return Part("engine", rollout.engines, items, share, rollout_bytes, beside)
    return Part("engine", rollout.engines * ranks * gpus, _on_a_card(items, gpus), share, rollout_bytes)


def learner_part(config: Config, shape: ModelShape) -> Part:
    """A learner with the largest micro-batch there can be."""
    learner = config.learner
    items = learner_items(
        shape,
        tokens=micro_batch_tokens(config),
        autocast=learner.dtype == "bfloat16",
        checkpointing=learner.gradient_checkpointing,
        reference=config.method.made.needs_reference(learner.kl_coef),
        critic=config.method.made.critic_kind,
        zero=learner.zero,
        learners=max(learner.learners, 1),
        adapters=adapter_parameters(shape, learner.lora_rank, learner.lora_targets),
        half=learner.weights == "bfloat16",
    )
    published = weight_bytes(config) * shape.parameters
    if config.rollout.reads_learner_memory:
        items = (*items, Item("published weights, of two versions, for engines to read", 2 * published))
    if _colocated(config):
        if config.rollout.reads_learner_gpu:
            items = (*items, Item("published weights, for the engine beside it", published))
        # vLLM's sleep mode leaves the engine its context and graphs; awake it has them in its own share
        asleep = Item("the engine beside it, asleep", CONTEXT + CUDA_GRAPHS, transient=True)
        return Part("learner", learner.learners, (*items, asleep))
    gpus = learner.gpus_per_learner
    return Part("learner", learner.learners * gpus, _on_a_card(items, gpus))


def micro_batch_tokens(config: Config) -> int:
    """Tokens of the largest micro-batch: a longer rollout is one by itself."""
    return max(config.learner.token_budget, config.rollout.max_tokens)


def weight_bytes(config: Config) -> int:
    """Bytes of one of the engines' weights."""
    return 2 if config.model.dtype == "bfloat16" else 4


def search_parts(config: Config) -> Iterator[Part]:
    """The search app's GPUs, and those of its index where that is spread over shards of its own."""
    search = config.search
    if search.elsewhere or not search.device.startswith("cuda"):
        return
    items: list[Item] = []
    index: tuple[Item, ...] = ()
    if search.retriever != "bm25" or search.reranker == "late":
        encoder = model_shape(resolve_model(search.encoder), "encoder")
        items.append(Item("encoder, fp32", 4 * encoder.parameters))
        if search.retriever != "bm25":
            index = _index_items(config, encoder.hidden)
    if search.reranker == "cross":
        items.append(Item("cross-encoder, fp32", 4 * model_shape(search.cross_encoder, "encoder").parameters))
    items.append(Item("CUDA context, batch of texts", 1.5 * CONTEXT))
    if search.shards > 1:
        shard = (*(Item(item.name, item.size_bytes / search.shards) for item in index), Item("CUDA context", CONTEXT))
        if gpus := search.shard_gpus:
            yield Part("index shard", search.shards * search.shard_replicas * gpus, _on_a_card(shard, gpus))
        index = ()
    if gpus := search.num_gpus:
        yield Part("search", search.replicas * gpus, _on_a_card((*index, *items), gpus))


def passages(config: Config) -> int | None:
    """How many passages the corpus has, as its store says or by its name; None where neither tells."""
    corpus = Path(config.data.corpus)
    try:
        if corpus.is_dir():
            return read_manifest(corpus).documents
    except ValueError:
        return None
    return WIKI_18_PASSAGES if WIKI_18 in corpus.name else None


def index_ram_bytes(config: Config) -> float:
    """What the processes of the search app's index hold of the machines' memory, all together; 0 where the number of
    passages is not known. ValueError for an encoder of unknown shape.

    FAISS maps inverted lists from their file, and vectors that are not in one of its indexes lie mapped in the cache;
    every other kind each process reads. On GPUs that memory is given back, but for a graph, which stays.
    """
    search, (kind, documents) = config.search, _index(config)
    on_gpus = search.device.startswith("cuda")
    mapped = {"flat": on_gpus or not search.faiss_index, "fp16": on_gpus, "hnsw": False, "ivfpq": True}[kind]
    if search.elsewhere or search.retriever == "bm25" or mapped or not documents:
        return 0.0
    width = model_shape(resolve_model(search.encoder), "encoder").hidden
    vector = 4 * width + 8 * search.hnsw_links if kind == "hnsw" else index_vector_bytes(kind, width)
    return (search.shard_replicas if search.shards > 1 else search.replicas) * documents * vector


def _index(config: Config) -> tuple[str, int]:
    """(kind, passages) of the index, 0 where it is not known."""
    if config.search.faiss_index and Path(config.search.faiss_index).is_dir():
        ready = index_manifest.read_manifest(Path(config.search.faiss_index))
        return ready.kind, sum(ready.rows)
    return str(config.search.index), passages(config) or 0


def _index_items(config: Config, width: int) -> tuple[Item, ...]:
    kind, documents = _index(config)
    size = documents * index_vector_bytes(kind, width)
    if not size:
        return ()
    return Item(f"{kind} index of {documents:,} passages", size), Item("FAISS's scratch memory", FAISS_SCRATCH)


def _colocated(config: Config) -> bool:
    return config.rollout.colocated and config.cluster.gpus_per_engine > 0


def _search_gpus(config: Config) -> float:
    """GPUs of the search app; a server that is up has its own."""
    search = config.search
    if search.elsewhere:
        return 0.0
    shards = search.shards * search.shard_replicas if search.shards > 1 else 0
    return search.replicas * search.num_gpus + shards * search.shard_gpus


def _on_a_card(items: tuple[Item, ...], gpus_a_process: float) -> tuple[Item, ...]:
    """Processes that ask for a fraction of a GPU share one."""
    n = int(1 / gpus_a_process) if gpus_a_process < 1 else 1
    if n == 1:
        return items
    return tuple(replace(item, name=f"{n} x {item.name}", size_bytes=n * item.size_bytes) for item in items)
