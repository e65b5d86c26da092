"""A corpus on disk that is used like a list: memory-mapped, looked up by row or by id in constant time.

What it holds in memory does not grow with the corpus: 21 million passages serve, and are built, on a small machine.

Array legend: N documents, B buckets of the id index, D rows left out.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np

from calibadv.data.errors import DataError, OnBad, refuse
from calibadv.data.store_files import ALL_DIGESTS, ALL_STARTS, DIGEST, fingerprint_of, kept, rows_to_drop, write_texts
from calibadv.data.store_index import Runs, write_index
from calibadv.data.store_layout import (
    BUCKETS,
    HASHES,
    MANIFEST,
    ROWS,
    STARTS,
    TEXTS,
    Manifest,
    StoredTexts,
    bucket_bits,
    id_hash,
    read_manifest,
    write_manifest,
)
from calibadv.files import whole_folder
from calibadv.types import Document

log = logging.getLogger(__name__)

RUN_ROWS = 2**18  # documents whose hashes are sorted at a time: 4 MB
_CHUNK = 2**16  # rows that iteration holds at a time


class CorpusStore(Sequence[Document]):
    """The documents that `build_store` wrote into `folder`, by row (0 to N - 1) and by id.

    Processes that open the same folder share its pages; it pickles as its path. DataError for a folder that is no whole
    store.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.manifest = read_manifest(self.folder)
        self._texts = StoredTexts(self.folder / TEXTS)
        # np.asarray: the same maps, without memmap's cost an access.
        self._starts_N, self._rows_N, self._buckets_B1 = (
            np.asarray(np.memmap(self.folder / name, "<i8", "r")) for name in (STARTS, ROWS, BUCKETS)
        )
        self._hashes_N = np.asarray(np.memmap(self.folder / HASHES, "<u8", "r"))
        self._shift = 64 - bucket_bits(self.manifest.documents)

    @property
    def fingerprint(self) -> str:
        """24 hex digits of ids, titles and texts in order: what is derived from the corpus is good for it alone."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        return self.manifest.documents

    @overload
    def __getitem__(self, row: SupportsIndex) -> Document: ...
    @overload
    def __getitem__(self, row: slice) -> list[Document]: ...
    def __getitem__(self, row: SupportsIndex | slice) -> Document | list[Document]:
        """The document of a row, from the end where it is negative; a list of them for a slice. IndexError beyond."""
        if isinstance(row, slice):
            return [self._texts.document(int(self._starts_N[at])) for at in range(*row.indices(len(self)))]
        at = operator.index(row)
        if not -len(self) <= at < len(self):
            raise IndexError(f"row {at} of {self.folder}, which has {len(self)} documents")
        return self._texts.document(int(self._starts_N[at]))

    def __iter__(self) -> Iterator[Document]:
        for first in range(0, len(self), _CHUNK):
            for start in self._starts_N[first : first + _CHUNK].tolist():
                yield self._texts.document(start)

    def __contains__(self, document: object) -> bool:
        return isinstance(document, Document) and self.has_id(document.id) and self.by_id(document.id) == document

    def row_of(self, doc_id: str) -> int:
        """The row of the document of an id, in constant time. KeyError if there is none."""
        row = self._find(doc_id)
        if row is None:
            raise KeyError(f"no document {doc_id!r} in {self.folder}")
        return row

    def by_id(self, doc_id: str) -> Document:
        """The document of an id, in constant time. KeyError if there is none."""
        return self[self.row_of(doc_id)]

    def has_id(self, doc_id: str) -> bool:
        """Whether there is a document of that id."""
        return self._find(doc_id) is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return CorpusStore, (self.folder,)

    def _find(self, doc_id: str) -> int | None:
        wanted = doc_id.encode("utf-8", "surrogatepass")
        key = int.from_bytes(id_hash(wanted), "little")
        bucket = key >> self._shift
        first, last = self._buckets_B1[bucket : bucket + 2].tolist()
        for place, found in enumerate(self._hashes_N[first:last].tolist(), start=first):
            if found == key:
                row = int(self._rows_N[place])
                start = int(self._starts_N[row])
                if self._texts.id(start) == wanted:  # two ids may share a hash
                    return row
        return None


def build_store(
    documents: Iterable[Document], folder: str | Path, on_bad: OnBad = refuse, *, run_rows: int = RUN_ROWS
) -> CorpusStore:
    """The store of `documents`, at least one, in their order, written into `folder`; one that is there is replaced.

    Passages without an id of their own (`passage_id`) that repeat an earlier one are left out and counted; any other
    document of an earlier one's id goes to `on_bad`, which is called only when all documents were read. Memory does not
    grow with their number: `run_rows` hashes are sorted at a time, and 40 bytes a document lie on disk until the end.
    Raises DataError if `folder` holds something else, if there is no document and for text that is no Unicode.
    """
    target = Path(folder).absolute()
    if run_rows < 1:
        raise ValueError(f"run_rows = {run_rows}; expected at least 1 document a run")
    _check_replaceable(target)
    with whole_folder(target) as partial:
        runs = Runs(partial, run_rows)
        write_texts(documents, partial, runs)
        if not runs.count:
            raise DataError(str(target), "there are 0 documents to store", "at least one", "Check the corpus file.")
        starts_N, digests_N = (
            np.asarray(np.memmap(partial / name, kind, "r"))
            for name, kind in ((ALL_STARTS, "<i8"), (ALL_DIGESTS, DIGEST))
        )
        dropped_D, repeated, skipped = rows_to_drop(runs, StoredTexts(partial / TEXTS), starts_N, target, on_bad)
        with (partial / STARTS).open("wb") as file:
            for part_K in kept(starts_N, dropped_D):
                part_K.tofile(file)
        count = runs.count - len(dropped_D)
        write_index(partial, runs.merged(), dropped_D, count)
        fingerprint = fingerprint_of(kept(digests_N, dropped_D))
        runs.remove()
        for name in (ALL_STARTS, ALL_DIGESTS):
            (partial / name).unlink()
        sizes = {name: (partial / name).stat().st_size for name in (TEXTS, STARTS, HASHES, ROWS, BUCKETS)}
        write_manifest(partial, Manifest(count, repeated, skipped, fingerprint, sizes))
    if repeated:
        log.warning("%s: left out %d passages that repeat an earlier one", target, repeated)
    return CorpusStore(target)


def _check_replaceable(target: Path) -> None:
    is_store = (target / MANIFEST).is_file() and (target / TEXTS).is_file()
    if target.exists() and not is_store and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(
            str(target), "there is something else already", "a corpus store, or nothing", "Choose another folder."
        )
