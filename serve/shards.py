"""An index in pieces on several replicas: each deployment holds some, and their top-k are merged into one.

For an index that no one process can hold. A shard that does not answer fails the whole search: a top-k of part of the
corpus would be a wrong answer that looks like a right one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from calibadv.retries import in_words
from calibadv.search.build import origin_of
from calibadv.search.encoder import TextEncoder
from calibadv.search.index import Nearest, merge_top_k
from calibadv.search.manifest import check_origin, read_manifest
from calibadv.search.settings import SearchConfig
from calibadv.search.stored_index import open_pieces, share_pieces
from calibadv.types import Document, FloatArray, IntArray

ANSWER_TIMEOUT_S = 60.0
START_TIMEOUT_S = 1800.0  # the first answer waits until every shard has read its pieces


class ShardUnavailable(RuntimeError):
    """A shard of the index gave no answer. Not this replica's fault: Serve replaces the shard by itself."""


class IndexShard:
    """Nearest rows of its own pieces, numbered over the whole corpus. Raises `ValueError` for files that do not fit."""

    def __init__(self, config: SearchConfig, shard: int) -> None:
        folder = Path(config.faiss_index)
        manifest = read_manifest(folder)
        pieces = share_pieces(len(manifest.rows), config.shards)[shard]
        self._nearest = open_pieces(folder, manifest, pieces, config)
        self._rows = sum(manifest.rows[piece] for piece in pieces)
        # One thread: the event loop keeps answering health checks while a search computes.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="shard")

    async def nearest(self, vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """(scores_BK, rows_BK) of this shard, K = min(k, its rows)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._nearest, vectors_BD, min(k, self._rows))


def check_shards(config: SearchConfig) -> None:
    """Raises `ValueError` unless `faiss_index` is a folder of at least as many pieces as there are shards."""
    folder = Path(config.faiss_index)
    if not config.faiss_index or not folder.is_dir():
        raise ValueError(
            f"shards = {config.shards} need an index in pieces; faiss_index = {config.faiss_index!r} is no folder: "
            "build one with workflows/build_index.py --rows-a-piece"
        )
    share_pieces(len(read_manifest(folder).rows), config.shards)


def nearest_of_shards(
    handles: Sequence[Any], documents: Sequence[Document], config: SearchConfig, encoder: TextEncoder
) -> Nearest:
    """Search in all shards at once. Call it from a thread without an event loop; raises `ShardUnavailable`.

    Raises `ValueError` at once when the index is of another corpus or encoder.
    """
    folder = Path(config.faiss_index)
    check_origin(read_manifest(folder).origin, origin_of(documents, config, encoder), folder)
    timeout_s = START_TIMEOUT_S

    def nearest(vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        nonlocal timeout_s
        under_way = [handle.nearest.remote(vectors_BD, k) for handle in handles]
        try:
            found = [answer.result(timeout_s=timeout_s) for answer in under_way]
        except Exception as error:  # time-out, a dead replica, a full queue: Serve has many kinds
            raise ShardUnavailable(f"a shard of the index gave no answer: {in_words(error)}") from error
        timeout_s = ANSWER_TIMEOUT_S
        return merge_top_k([scores for scores, _ in found], [rows for _, rows in found], k)

    return nearest
