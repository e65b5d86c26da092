"""FAISS indexes on disk: built once into a folder of pieces with a manifest, refused when they do not fit, opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from calibadv.files import once_at_a_time, whole_folder
from calibadv.search.faiss_index import add_rows, build_parameters, opened, search_in, trained_index
from calibadv.search.index import Nearest, in_pieces, loaded_faiss
from calibadv.search.manifest import (
    MANIFEST,
    IndexManifest,
    Origin,
    check_origin,
    index_key,
    read_manifest,
    write_manifest,
)
from calibadv.search.settings import SearchConfig
from calibadv.types import FloatArray

logger = logging.getLogger(__name__)

ROWS_A_PIECE = 4_000_000  # one piece is in memory while it is built: 12 GB of E5's vectors when it is flat


def load_or_build(
    vectors: Callable[[], FloatArray],
    origin: Origin,
    config: SearchConfig,
    cache_dir: Path,
    *,
    rows_a_piece: int = ROWS_A_PIECE,
) -> Path:
    """The folder of the index of `origin`, built now unless `cache_dir` has it. `vectors` is only called to build.

    Two processes that ask at once build once. Raises `ValueError` as `build_parameters` does, and for vectors whose
    shape is not [documents, dim] of the origin.
    """
    parameters = build_parameters(config, origin.documents, origin.dim)
    key = index_key(origin, config.index, parameters, rows_a_piece)
    folder = cache_dir / f"index-{config.index}-{key}"
    with once_at_a_time(folder):
        if not _complete(folder):
            vectors_ND = vectors()
            if vectors_ND.shape != (origin.documents, origin.dim):
                raise ValueError(
                    f"the vectors have the shape {vectors_ND.shape}; expected {(origin.documents, origin.dim)}: embed "
                    "the corpus again"
                )
            with whole_folder(folder) as partial:
                rows = _build(vectors_ND, config.index, parameters, partial, rows_a_piece, config.threads)
                write_manifest(partial, IndexManifest(origin, config.index, parameters, rows))
    return folder


def _build(
    vectors_ND: FloatArray,
    kind: str,
    parameters: dict[str, int],
    folder: Path,
    rows_a_piece: int,
    threads: int | None,
) -> tuple[int, ...]:
    faiss = loaded_faiss(threads)
    # Trained once: pieces whose codes came from different centroids would give scores that do not compare.
    empty = trained_index(kind, vectors_ND, parameters)
    rows = []
    for piece, first in enumerate(range(0, len(vectors_ND), rows_a_piece)):
        own_ND = vectors_ND[first : first + rows_a_piece]
        index = faiss.clone_index(empty)
        add_rows(index, own_ND)
        path = piece_path(folder, piece)
        faiss.write_index(index, str(path))
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        rows.append(len(own_ND))
        logger.info("search: %s index, %d of %d vectors", kind, first + len(own_ND), len(vectors_ND))
    return tuple(rows)


def open_index(folder: Path, wanted: Origin, config: SearchConfig) -> Nearest:
    """Search in a whole index folder. Raises `ValueError` when its manifest says another corpus or encoder.

    The folder decides the kind; `config` gives `hnsw_search`, `ivf_probes`, threads and device.
    """
    manifest = read_manifest(folder)
    check_origin(manifest.origin, wanted, folder)
    return open_pieces(folder, manifest, range(len(manifest.rows)), config)


def from_file(path: Path, wanted: Origin, config: SearchConfig) -> Nearest:
    """Search in a ready FAISS file whose row i is document i of the corpus, embedded by the same encoder.

    A manifest beside it (`<file>.manifest.json`) is held to that; without one only the number and the width of the
    vectors can be checked, which a warning says. Raises `ValueError` when they differ, or when the file measures
    distances: an inner-product index is expected.
    """
    if not path.is_file():
        raise ValueError(
            f"faiss_index = {path} is not there; give a ready index, or leave it empty to embed the corpus"
        )
    faiss = loaded_faiss(config.threads)
    described = path.with_name(f"{path.name}.{MANIFEST}")
    if described.is_file():
        check_origin(read_manifest(described).origin, wanted, path)
    else:
        logger.warning("search: no %s: that %s is of this corpus and encoder cannot be checked", described.name, path)
    index = opened(path, config)
    if (index.ntotal, index.d) != (wanted.documents, wanted.dim):
        raise ValueError(
            f"{path} holds {index.ntotal} vectors of width {index.d}; the corpus has {wanted.documents} documents and "
            f"the encoder gives width {wanted.dim}: use the corpus and the encoder that the index was built with"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"{path} measures distance; expected an inner-product index (faiss.IndexFlatIP and the like)")
    return search_in(index, config)


def open_pieces(folder: Path, manifest: IndexManifest, pieces: Sequence[int], config: SearchConfig) -> Nearest:
    """Search in some pieces of an index; rows are the whole corpus's. `ValueError` for a file of another length."""
    loaded_faiss(config.threads)
    parts = []
    for piece in pieces:
        path = piece_path(folder, piece)
        if not path.is_file():
            raise ValueError(
                f"{path} is missing from the index: copy it, or build it again with workflows/build_index.py"
            )
        index = opened(path, config)
        if (index.ntotal, index.d) != (manifest.rows[piece], manifest.origin.dim):
            raise ValueError(
                f"{path} holds {index.ntotal} vectors of width {index.d}; its manifest says {manifest.rows[piece]} of "
                f"width {manifest.origin.dim}: copy it again, or build it again with workflows/build_index.py"
            )
        parts.append((manifest.starts[piece], manifest.rows[piece], search_in(index, config)))
    return in_pieces(parts)


def share_pieces(pieces: int, shards: int) -> tuple[tuple[int, ...], ...]:
    """Which pieces each shard holds: neighbours, as even as can be. `ValueError` for more shards than pieces."""
    if not 1 <= shards <= pieces:
        raise ValueError(
            f"{shards} shards of an index of {pieces} pieces; expected 1 to {pieces}: build it in more pieces "
            "(workflows/build_index.py --rows-a-piece), or ask for fewer shards"
        )
    bounds = [pieces * shard // shards for shard in range(shards + 1)]
    return tuple(tuple(range(first, last)) for first, last in pairwise(bounds))


def piece_path(folder: Path, piece: int) -> Path:
    """The FAISS file of a piece."""
    return folder / f"piece-{piece:05d}.faiss"


def _complete(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()
