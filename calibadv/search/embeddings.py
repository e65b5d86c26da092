"""A corpus's embeddings on disk: computed once, written atomically, memory-mapped ever after.

Array legend: N documents, M tokens of all documents one after the other, D embedding width.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibadv.search.encoder import TextEncoder, passage_text
from calibadv.types import Document, FloatArray, IntArray

logger = logging.getLogger(__name__)

HalfArray = NDArray[np.float16]
_CHUNK = 1024  # documents held in memory at a time
_FORMAT = 1  # of the files below; in the fingerprint, so that a new format never meets old files


@dataclass(frozen=True, slots=True)
class CorpusEmbeddings:
    """Memory maps, shared by every process that opens them. Row i is document i."""

    vectors: FloatArray  # [N, D]
    tokens: HalfArray | None  # [M, D]; of document i: rows starts[i] to starts[i + 1]
    starts: IntArray | None  # [N + 1]


def corpus_fingerprint(documents: Sequence[Document], salt: str) -> str:
    """Hash of every document's id, title and text in order, and of `salt` (what else the derived files depend on)."""
    digest = hashlib.sha256(f"{_FORMAT}|{salt}".encode())
    for document in documents:
        for part in (document.id, document.title, document.text):
            encoded = part.encode("utf-8", "replace")
            digest.update(len(encoded).to_bytes(8, "little"))  # so that ("ab", "c") and ("a", "bc") differ
            digest.update(encoded)
    return digest.hexdigest()[:24]


def load_or_embed(
    documents: Sequence[Document], encoder: TextEncoder, cache_dir: Path, tokens: bool
) -> CorpusEmbeddings:
    """The corpus's embeddings, from `cache_dir` when encoder and corpus are those of an earlier run, else computed.

    `tokens` also keeps every token's vector as fp16 (2 * D bytes a token: 0.1 MB for a 128-token passage and MiniLM).
    Two processes that ask at once compute once: the second waits. Raises `ValueError` when the disk has no room.
    """
    fingerprint = corpus_fingerprint(documents, f"{encoder.identity}|tokens={tokens}")
    folder = cache_dir / f"embeddings-{fingerprint}"
    with once_at_a_time(folder):
        if not _complete(folder):
            if tokens:
                _check_room(documents, encoder.dim, cache_dir)
            with atomic_folder(folder) as partial:
                _embed(documents, encoder, partial, tokens)
        else:
            logger.info("search: embeddings of %d documents read from the cache", len(documents))
    return _open(folder)


@contextmanager
def once_at_a_time(folder: Path) -> Iterator[None]:
    """Hold `folder`'s lock. The kernel drops it when its process dies, so that a crash never blocks the next run."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes `folder`'s name only when the block ends well. The caller holds the lock."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that died; nobody else is here
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)


def _embed(documents: Sequence[Document], encoder: TextEncoder, folder: Path, tokens: bool) -> None:
    starts = [0]
    with (folder / "vectors.f32").open("wb") as vectors_file, (folder / "tokens.f16").open("wb") as tokens_file:
        for first in range(0, len(documents), _CHUNK):
            encoded = encoder.encode_passages([passage_text(d) for d in documents[first : first + _CHUNK]], tokens)
            vectors_file.write(np.ascontiguousarray(encoded.vectors, dtype=np.float32).tobytes())
            for tokens_TD in encoded.tokens:
                tokens_file.write(tokens_TD.astype(np.float16).tobytes())
                starts.append(starts[-1] + len(tokens_TD))
            logger.info("search: embedded %d of %d documents", min(first + _CHUNK, len(documents)), len(documents))
        for file in (vectors_file, tokens_file):
            file.flush()
            os.fsync(file.fileno())
    np.save(folder / "starts.npy", np.asarray(starts, dtype=np.int64))
    manifest = {"documents": len(documents), "dim": encoder.dim, "token_rows": starts[-1], "tokens": tokens}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _complete(folder: Path) -> bool:
    """Whether the files are as long as the manifest says: a copied or truncated cache is built again."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        vectors_bytes = 4 * manifest["documents"] * manifest["dim"]
        tokens_bytes = 2 * manifest["token_rows"] * manifest["dim"]
        sizes = ((folder / "vectors.f32").stat().st_size, (folder / "tokens.f16").stat().st_size)
        return sizes == (vectors_bytes, tokens_bytes) and (folder / "starts.npy").is_file()
    except (OSError, ValueError, KeyError):
        return False


def _open(folder: Path) -> CorpusEmbeddings:
    manifest = json.loads((folder / "manifest.json").read_text())
    dim = manifest["dim"]
    vectors_ND = np.memmap(folder / "vectors.f32", np.float32, "r", shape=(manifest["documents"], dim))
    if not manifest["tokens"]:
        return CorpusEmbeddings(vectors_ND, None, None)
    tokens_MD = np.memmap(folder / "tokens.f16", np.float16, "r", shape=(manifest["token_rows"], dim))
    return CorpusEmbeddings(vectors_ND, tokens_MD, np.load(folder / "starts.npy"))


def _check_room(documents: Sequence[Document], dim: int, cache_dir: Path) -> None:
    # Four characters a token is English; special tokens make up for very short passages.
    needed = sum(min(256, 8 + len(passage_text(d)) // 4) for d in documents) * dim * 2
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        raise ValueError(
            f"late interaction over {len(documents)} documents needs about {needed / 1e9:.1f} GB in {cache_dir}, which "
            f'has {free / 1e9:.1f} GB free: use reranker = "cross" (nothing is stored) or another cache folder'
        )
