"""Embeds shards of a corpus on a Ray Data actor pool: each actor opens corpus and encoder once, a row is a shard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from calibadv.search.embed_shards import Shard, embed_shard, missing_shards
from calibadv.search.encoder import TextEncoder
from calibadv.types import Document


@dataclass(frozen=True, slots=True)
class EmbeddingPool:
    """How many encoders there are, and what each of them takes."""

    workers: int = 1
    num_cpus: float = 1.0  # per worker
    num_gpus: float = 0.0  # per worker
    threads: int | None = None  # of a worker's torch; None leaves the process's own setting

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers = {self.workers}; expected at least 1")


class ShardEmbedder:
    """One actor of the pool."""

    def __init__(
        self, open_documents: Callable[[], Sequence[Document]], make_encoder: Callable[[], TextEncoder], folder: str
    ) -> None:
        self._documents = open_documents()
        self._encoder = make_encoder()
        self._folder = Path(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embeds the shards of these rows. One that is whole already (its actor died after writing it) is left."""
        columns = (batch["number"].tolist(), batch["first"].tolist(), batch["last"].tolist())
        for number, first, last in zip(*columns, strict=True):
            shard = Shard(number, first, last)
            if missing_shards(self._folder, [shard], self._encoder.dim):
                embed_shard(self._documents, self._encoder, shard, self._folder)
        return {"number": batch["number"]}


def embed_on_ray(
    open_documents: Callable[[], Sequence[Document]],
    make_encoder: Callable[[], TextEncoder],
    shards: Sequence[Shard],
    folder: Path,
    pool: EmbeddingPool,
) -> Iterator[int]:
    """The numbers of the shards as they are done, on the Ray cluster that is running. No shard starts no actor.

    `folder` must be one that every node sees. An actor that dies is replaced and its shard embedded again.
    """
    if not shards:
        return
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with DataContext.current(context):
        # A block a shard: a block's rows come out together, and progress should be seen a shard at a time.
        dataset = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards)).map_batches(
            ShardEmbedder,
            fn_constructor_args=(open_documents, make_encoder, str(folder)),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(pool.workers, len(shards)), max_tasks_in_flight_per_actor=2),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
            runtime_env={} if pool.threads is None else {"env_vars": {"OMP_NUM_THREADS": str(pool.threads)}},
        )
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        yield from (int(number) for number in batch["number"])
