"""The steps of building a corpus store's files, each reading and writing by parts.

Array legend: N documents, D rows left out, K rows of a part.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibadv.data.errors import DataError, OnBad, RepeatedId
from calibadv.data.passages import passage_id
from calibadv.data.store_index import Runs, rows_of_equal_hash
from calibadv.data.store_layout import TEXTS, StoredTexts, id_hash, packed
from calibadv.types import Document, IntArray

log = logging.getLogger(__name__)

# Of every document that was read, also of those that will be left out.
ALL_STARTS, ALL_DIGESTS = "starts.all", "digests.all"
_DIGEST_BYTES = 16
DIGEST = np.dtype(f"V{_DIGEST_BYTES}")
_CHUNK = 2**16  # rows of a part
_SAID_EVERY = 1_000_000  # passages


def write_texts(documents: Iterable[Document], folder: Path, runs: Runs) -> None:
    """Writes every document, where it begins and its digest, and adds the hash of its id to `runs`."""
    start, starts, digests = 0, array("q"), bytearray()
    with (
        (folder / TEXTS).open("wb") as texts_file,
        (folder / ALL_STARTS).open("wb") as starts_file,
        (folder / ALL_DIGESTS).open("wb") as digests_file,
    ):

        def flush() -> None:
            np.asarray(starts, "<i8").tofile(starts_file)
            digests_file.write(digests)
            del starts[:]
            digests.clear()

        for document in documents:
            try:
                record, doc_id = packed(document)
            except UnicodeEncodeError as error:
                raise DataError(
                    f"passage {runs.count + 1}, {document.id!r}", f"{error}", "Unicode text", "Mend or drop it."
                ) from error
            texts_file.write(record)
            starts.append(start)
            start += len(record)
            digests += hashlib.blake2b(record, digest_size=_DIGEST_BYTES).digest()
            runs.add(id_hash(doc_id))
            if len(starts) == _CHUNK:
                flush()
            if runs.count % _SAID_EVERY == 0:
                log.info("%d passages read", runs.count)
        flush()
    runs.finish()


def rows_to_drop(
    runs: Runs, texts: StoredTexts, starts_N: IntArray, target: Path, on_bad: OnBad
) -> tuple[IntArray, int, int]:
    """(rows to leave out, ascending [D]; how many of them merely repeat a passage; how many have an id that is taken).

    The latter go to `on_bad`, in the order of their rows.
    """
    repeats: list[int] = []
    taken: list[tuple[int, int, str]] = []
    for rows in rows_of_equal_hash(runs.merged()):
        first_of: dict[bytes, int] = {}
        for row in rows:
            first = first_of.setdefault(texts.id(int(starts_N[row])), row)
            if first == row:
                continue
            document = texts.document(int(starts_N[row]))
            if document.id == passage_id(document.title, document.text):
                repeats.append(row)
            else:
                taken.append((row, first, document.id))
    for row, first, doc_id in sorted(taken):
        on_bad(RepeatedId(f"{target}, passage {row + 1}", doc_id, f"passage {first + 1}"))
    return np.asarray(sorted(repeats + [row for row, *_ in taken]), np.int64), len(repeats), len(taken)


def kept(values_N: NDArray[Any], dropped_D: IntArray) -> Iterator[NDArray[Any]]:
    """The values, by parts, of the documents that are left when the rows `dropped_D` (ascending) are."""
    for first in range(0, len(values_N), _CHUNK):
        here = dropped_D[(dropped_D >= first) & (dropped_D < first + _CHUNK)] - first
        yield np.delete(values_N[first : first + _CHUNK], here)


def fingerprint_of(digests: Iterable[NDArray[Any]]) -> str:
    """24 hex digits of the documents of these digests, in their order."""
    whole = hashlib.blake2b(digest_size=12)
    for part_K in digests:
        whole.update(part_K.tobytes())
    return whole.hexdigest()
