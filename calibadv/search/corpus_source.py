"""The documents behind a path: a corpus store's folder, memory-mapped, or a corpus file, read whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.data.corpus import load_corpus
from calibadv.types import Document


def open_corpus(path: str | Path) -> Sequence[Document]:
    """The documents in corpus order. A store has a `fingerprint` and costs no memory; a file is read into a list.

    Raises `FileNotFoundError` for a path that is not there, and `DataError` as the loaders do.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"corpus {place} is not there: prepare it with workflows/prepare_data.py")
    return load_corpus(place)
