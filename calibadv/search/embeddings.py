"""A corpus's embeddings on disk: computed once, written atomically, memory-mapped ever after.

Array legend: N documents, M tokens of all documents one after the other, D embedding width, V token ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibadv.files import once_at_a_time, whole_folder
from calibadv.search.encoder import TextEncoder, passage_text
from calibadv.types import Document, FloatArray, IntArray

logger = logging.getLogger(__name__)

HalfArray = NDArray[np.float16]
AT_ONCE = 1024  # documents held in memory
_PROGRESS = "progress"  # a file beside those that are being written
_FORMAT = 2  # of the files below; in the fingerprint, so that a new format never meets old files


@dataclass(frozen=True, slots=True)
class CorpusEmbeddings:
    """Memory maps, shared by every process that opens them. Row i is document i."""

    vectors: FloatArray  # [N, D]
    tokens: HalfArray | None  # [M, D]; of document i: rows starts[i] to starts[i + 1]
    starts: IntArray | None  # [N + 1]
    frequencies: IntArray | None  # [V] documents that hold each token id; empty when the encoder tells no ids


def corpus_fingerprint(documents: Sequence[Document], salt: str) -> str:
    """Hash of every document's id, title and text in order, and of `salt` (what else the derived files depend on)."""
    digest = hashlib.sha256(f"{_FORMAT}|{salt}".encode())
    for document in documents:
        for part in (document.id, document.title, document.text):
            encoded = part.encode("utf-8", "replace")
            digest.update(len(encoded).to_bytes(8, "little"))  # so that ("ab", "c") and ("a", "bc") differ
            digest.update(encoded)
    return digest.hexdigest()[:24]


def corpus_identity(documents: Sequence[Document]) -> str:
    """What names this corpus: the `fingerprint` that a corpus store has, else the hash of all its documents."""
    stored = getattr(documents, "fingerprint", None)
    return stored if isinstance(stored, str) else corpus_fingerprint(documents, "")


def embeddings_folder(corpus: str, encoder: TextEncoder, cache_dir: Path, tokens: bool = False) -> Path:
    """Where the embeddings of the corpus of this `corpus_identity` by this encoder are, or will be."""
    content = f"{_FORMAT}|{corpus}|{encoder.identity}|tokens={tokens}"
    return cache_dir / f"embeddings-{hashlib.sha256(content.encode('utf-8', 'replace')).hexdigest()[:24]}"


def load_or_embed(
    documents: Sequence[Document], encoder: TextEncoder, cache_dir: Path, tokens: bool, at_once: int = AT_ONCE
) -> CorpusEmbeddings:
    """The corpus's embeddings, from `cache_dir` when encoder and corpus are those of an earlier run, else computed.

    `tokens` also keeps every token's vector as fp16 (2 * D bytes a token: 0.1 MB for a 128-token passage and MiniLM).
    Two processes that ask at once compute once: the second waits. Raises `ValueError` when the disk has no room, and
    for tokens of another width than D.
    """
    corpus = corpus_identity(documents)
    with_tokens = embeddings_folder(corpus, encoder, cache_dir, tokens=True)
    # Those with tokens hold the same vectors.
    folder = with_tokens if tokens or is_complete(with_tokens) else embeddings_folder(corpus, encoder, cache_dir)
    with once_at_a_time(folder):
        if not is_complete(folder):
            if tokens:
                _check_room(documents, encoder, cache_dir)
            with whole_folder(folder) as partial:
                _embed(documents, encoder, partial, tokens, at_once)
        else:
            logger.info("search: embeddings of %d documents read from the cache", len(documents))
    return _open(folder)


def embedding_progress(cache_dir: Path) -> str | None:
    """How far the newest embedding in `cache_dir` is, by whatever process; None where none is under way."""
    try:
        newest = max(cache_dir.glob(f"embeddings-*.partial/{_PROGRESS}"), key=lambda path: path.stat().st_mtime)
        return f"{newest.read_text()} documents are embedded"
    except (ValueError, OSError):  # none, or it has ended meanwhile
        return None


def _embed(documents: Sequence[Document], encoder: TextEncoder, folder: Path, tokens: bool, at_once: int) -> None:
    starts = [0]
    frequencies_V = np.zeros(0, dtype=np.int64)
    (folder / _PROGRESS).write_text(f"0 of {len(documents):,}")
    with (folder / "vectors.f32").open("wb") as vectors_file, (folder / "tokens.f16").open("wb") as tokens_file:
        for first in range(0, len(documents), at_once):
            rows = range(first, min(first + at_once, len(documents)))
            encoded = encoder.encode_passages([passage_text(documents[row]) for row in rows], tokens)
            _check_widths(encoded.tokens, encoder.dim)
            vectors_file.write(np.ascontiguousarray(encoded.vectors, dtype=np.float32).tobytes())
            for tokens_TD in encoded.tokens:
                tokens_file.write(tokens_TD.astype(np.float16).tobytes())
                starts.append(starts[-1] + len(tokens_TD))
            frequencies_V = _counted(frequencies_V, encoded.token_ids)
            logger.info("search: embedded %d of %d documents", rows.stop, len(documents))
            (folder / _PROGRESS).write_text(f"{rows.stop:,} of {len(documents):,}")
    (folder / _PROGRESS).unlink()
    np.save(folder / "starts.npy", np.asarray(starts, dtype=np.int64))
    np.save(folder / "frequencies.npy", frequencies_V)
    _close(folder, len(documents), encoder.dim, starts[-1], tokens)


def _counted(frequencies_V: IntArray, token_ids: Sequence[IntArray]) -> IntArray:
    """The frequencies with one more for each document that holds an id. Grows to the largest id."""
    if not token_ids:
        return frequencies_V
    present = np.concatenate([np.unique(ids_T) for ids_T in token_ids])
    counts_V = np.bincount(present, minlength=len(frequencies_V)).astype(np.int64)
    counts_V[: len(frequencies_V)] += frequencies_V
    return counts_V


def close_vectors(folder: Path, documents: int, dim: int) -> None:
    """Turns a folder that holds `vectors.f32` alone into complete embeddings without tokens."""
    (folder / "tokens.f16").touch()
    for name in ("starts", "frequencies"):
        np.save(folder / f"{name}.npy", np.zeros(1, dtype=np.int64))
    _close(folder, documents, dim, 0, tokens=False)


def _close(folder: Path, documents: int, dim: int, token_rows: int, tokens: bool) -> None:
    for name in ("vectors.f32", "tokens.f16"):
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
    manifest = {"documents": documents, "dim": dim, "token_rows": token_rows, "tokens": tokens}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def is_complete(folder: Path) -> bool:
    """Whether the files are as long as the manifest says: a copied or truncated cache is built again."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        vectors_bytes = 4 * manifest["documents"] * manifest["dim"]
        tokens_bytes = 2 * manifest["token_rows"] * manifest["dim"]
        sizes = ((folder / "vectors.f32").stat().st_size, (folder / "tokens.f16").stat().st_size)
        arrays = [(folder / f"{name}.npy").is_file() for name in ("starts", "frequencies")]
        return sizes == (vectors_bytes, tokens_bytes) and all(arrays)
    except (OSError, ValueError, KeyError):
        return False


def _open(folder: Path) -> CorpusEmbeddings:
    manifest = json.loads((folder / "manifest.json").read_text())
    dim = manifest["dim"]
    vectors_ND = np.memmap(folder / "vectors.f32", np.float32, "r", shape=(manifest["documents"], dim))
    if not manifest["tokens"]:
        return CorpusEmbeddings(vectors_ND, None, None, None)
    tokens_MD = np.memmap(folder / "tokens.f16", np.float16, "r", shape=(manifest["token_rows"], dim))
    starts_N1, frequencies_V = np.load(folder / "starts.npy"), np.load(folder / "frequencies.npy")
    return CorpusEmbeddings(vectors_ND, tokens_MD, starts_N1, frequencies_V)


def _check_widths(tokens: Sequence[FloatArray], dim: int) -> None:
    if widths := {tokens_TD.shape[1] for tokens_TD in tokens} - {dim}:
        raise ValueError(
            "late interaction compares tokens with the pooled vector, and this encoder's have the widths "
            f"{widths.pop()} and {dim} (its last layer changes it): "
            'use reranker = "cross" or "none", or another encoder'
        )


def _check_room(documents: Sequence[Document], encoder: TextEncoder, cache_dir: Path) -> None:
    # Four characters a token is English; special tokens make up for very short passages.
    tokens = sum(min(encoder.max_tokens, 8 + len(passage_text(d)) // 4) for d in documents)
    needed = tokens * encoder.dim * 2
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        raise ValueError(
            f"late interaction over {len(documents)} documents needs about {needed / 1e9:.1f} GB in {cache_dir}, which "
            f'has {free / 1e9:.1f} GB free: use reranker = "cross" (nothing is stored) or another cache folder'
        )
