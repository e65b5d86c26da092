"""A corpus's embeddings in shards that many processes compute and a run that died does not compute again.

A shard is a file of float32 rows; its manifest is written after it and says that it is whole.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibadv.files import once_at_a_time, whole_file, whole_folder, write_text
from calibadv.search.embeddings import close_vectors, corpus_identity, embeddings_folder, is_complete
from calibadv.search.encoder import TextEncoder, passage_text
from calibadv.types import Document

logger = logging.getLogger(__name__)

_BATCH = 1024  # documents held in memory at a time


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows `first` to `last` (exclusive) of the corpus."""

    number: int
    first: int
    last: int


Embed = Callable[[Sequence[Shard], Path], Iterable[int]]
"""(shards, folder) -> their numbers, each as soon as it is whole in the folder."""


def embed_missing(
    documents: Sequence[Document], encoder: TextEncoder, cache_dir: Path, rows_a_shard: int, embed: Embed | None = None
) -> None:
    """The corpus's embeddings in `cache_dir`: nothing to do when they are there, else the shards that are missing.

    `embed` computes them, by default in this process.
    """
    folder = embeddings_folder(corpus_identity(documents), encoder, cache_dir)
    if is_complete(folder):
        logger.info("embeddings: %s, from the cache", folder)
        return
    shards = plan_shards(len(documents), rows_a_shard)
    parts = folder.with_name(f"{folder.name}.shards")
    missing = missing_shards(parts, shards, encoder.dim)
    logger.info("embedding %d documents: %d of %d shards are missing", len(documents), len(missing), len(shards))

    def here(shards: Sequence[Shard], folder: Path) -> Iterator[int]:
        for shard in shards:
            embed_shard(documents, encoder, shard, folder)
            yield shard.number

    started_s = time.monotonic()
    for count, _ in enumerate((embed or here)(missing, parts), start=1):
        left_s = (time.monotonic() - started_s) / count * (len(missing) - count)
        logger.info("shard %d of %d, about %.0f s to go", count, len(missing), left_s)
    join_shards(parts, shards, encoder.dim, folder)
    logger.info("embeddings: %s", folder)


def plan_shards(documents: int, rows: int) -> tuple[Shard, ...]:
    """The corpus in shards of `rows` documents, the last one shorter. Raises `ValueError` for `rows` below 1."""
    if rows < 1:
        raise ValueError(f"shards of {rows} documents; expected at least 1")
    firsts = range(0, documents, rows)
    return tuple(Shard(number, first, min(first + rows, documents)) for number, first in enumerate(firsts))


def missing_shards(folder: Path, shards: Sequence[Shard], dim: int) -> tuple[Shard, ...]:
    """Those not whole in `folder`, in order: no manifest, another range or width, or a file of other length."""
    return tuple(shard for shard in shards if not _is_whole(folder, shard, dim))


def embed_shard(documents: Sequence[Document], encoder: TextEncoder, shard: Shard, folder: Path) -> Path:
    """Embeds one shard into `folder` and returns its file. Safe to repeat, and for two processes at once."""
    folder.mkdir(parents=True, exist_ok=True)
    path, manifest = _paths(folder, shard)
    with whole_file(path, durable=True) as draft, draft.open("wb") as file:
        for first in range(shard.first, shard.last, _BATCH):
            last = min(first + _BATCH, shard.last)
            texts = [passage_text(documents[row]) for row in range(first, last)]
            vectors_BD = encoder.encode_passages(texts, tokens=False).vectors
            file.write(np.ascontiguousarray(vectors_BD, dtype=np.float32).tobytes())
    write_text(manifest, json.dumps(_description(shard, encoder.dim)))
    return path


def join_shards(folder: Path, shards: Sequence[Shard], dim: int, embeddings: Path) -> None:
    """Makes `embeddings`, the folder that `load_or_embed` reads, of all shards, and removes theirs.

    Needs room for the vectors twice while it copies. Raises `ValueError` when a shard is missing or the disk is full.
    """
    missing = missing_shards(folder, shards, dim)
    if missing:
        raise ValueError(f"{len(missing)} of {len(shards)} shards are missing in {folder}, the first is {missing[0]}")
    documents = shards[-1].last if shards else 0
    needed, free = 4 * documents * dim, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"joining the shards needs {needed / 1e9:.1f} GB beside them; {folder} has {free / 1e9:.1f} GB free: "
            "make room and start again, the shards are kept"
        )
    with once_at_a_time(embeddings), whole_folder(embeddings) as partial:
        with (partial / "vectors.f32").open("wb") as whole:
            for shard in shards:
                with _paths(folder, shard)[0].open("rb") as part:
                    shutil.copyfileobj(part, whole, 2**24)
        close_vectors(partial, documents, dim)
    shutil.rmtree(folder)
    logger.info("search: %d shards joined to %d vectors", len(shards), documents)


def _paths(folder: Path, shard: Shard) -> tuple[Path, Path]:
    return folder / f"vectors-{shard.number:06d}.f32", folder / f"vectors-{shard.number:06d}.json"


def _description(shard: Shard, dim: int) -> dict[str, int]:
    return {"number": shard.number, "first": shard.first, "last": shard.last, "dim": dim}


def _is_whole(folder: Path, shard: Shard, dim: int) -> bool:
    path, manifest = _paths(folder, shard)
    try:
        described = json.loads(manifest.read_text())
        return bool(
            described == _description(shard, dim) and path.stat().st_size == 4 * (shard.last - shard.first) * dim
        )
    except (OSError, ValueError):
        return False
