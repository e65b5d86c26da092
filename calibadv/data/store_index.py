"""Builds a store's id index in bounded memory: sorted runs on disk, merged one range of hashes at a time.

Array legend: N documents of the whole store, K of the part at hand, R runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibadv.data.store_layout import BUCKETS, HASHES, ROWS, bucket_bits
from calibadv.types import IntArray

HashArray = NDArray[np.uint64]
Part = tuple[HashArray, IntArray]
"""(hashes_K ascending, rows_K): rows ascend among equal hashes."""

_RUN_HASHES, _RUN_ROWS = "hashes.runs", "rows.runs"


class Runs:
    """The hashes of documents in the order of their rows, kept on disk as sorted runs of `run_rows` documents.

    Memory: one run while they are added, about one run while they are merged; 16 bytes a document on disk.
    """

    def __init__(self, folder: Path, run_rows: int) -> None:
        assert run_rows > 0
        self._folder, self._run_rows, self.count = folder, run_rows, 0
        self._pending = bytearray()

    def add(self, hash_bytes: bytes) -> None:
        """The hash of the next row, 8 bytes, little-endian."""
        self._pending += hash_bytes
        self.count += 1
        if len(self._pending) == 8 * self._run_rows:
            self._write_run()

    def finish(self) -> None:
        """Writes the last run. Only then can they be merged."""
        self._write_run()

    def _write_run(self) -> None:
        hashes_K = np.frombuffer(bytes(self._pending), "<u8")
        order_K = np.argsort(hashes_K, kind="stable")
        rows_K = (order_K + (self.count - len(hashes_K))).astype("<i8")
        for name, values_K in ((_RUN_HASHES, hashes_K[order_K]), (_RUN_ROWS, rows_K)):
            with (self._folder / name).open("ab") as file:
                values_K.tofile(file)
        self._pending.clear()

    def merged(self) -> Iterator[Part]:
        """All hashes with their rows, at least one, in ascending parts of about one run each."""
        assert self.count
        all_hashes_N = np.asarray(np.memmap(self._folder / _RUN_HASHES, "<u8", "r"))
        all_rows_N = np.asarray(np.memmap(self._folder / _RUN_ROWS, "<i8", "r"))
        firsts = range(0, self.count, self._run_rows)
        lasts = [min(first + self._run_rows, self.count) for first in firsts]
        at_R = list(firsts)
        parts = len(at_R)
        for part in range(1, parts + 1):
            # Hashes are uniform: equal ranges of them hold about equally many.
            end = None if part == parts else np.uint64(part * 2**64 // parts)
            pieces = []
            for run, last in enumerate(lasts):
                rest_K = all_hashes_N[at_R[run] : last]
                stop = last if end is None else at_R[run] + int(np.searchsorted(rest_K, end))
                pieces.append(slice(at_R[run], stop))
                at_R[run] = stop
            hashes_K = np.concatenate([all_hashes_N[piece] for piece in pieces])
            rows_K = np.concatenate([all_rows_N[piece] for piece in pieces])
            order_K = np.argsort(hashes_K, kind="stable")  # the runs are in the order of their rows
            yield hashes_K[order_K], rows_K[order_K]

    def remove(self) -> None:
        """Deletes the files."""
        for name in (_RUN_HASHES, _RUN_ROWS):
            (self._folder / name).unlink()


def rows_of_equal_hash(parts: Iterable[Part]) -> Iterator[list[int]]:
    """The rows, ascending, of every hash that occurs more than once: equal ids, and by rare chance different ones."""
    for hashes_K, rows_K in parts:
        same_K = np.flatnonzero(hashes_K[1:] == hashes_K[:-1])
        group: list[int] = []
        for place in same_K.tolist():
            if group and int(rows_K[place]) == group[-1]:
                group.append(int(rows_K[place + 1]))
                continue
            if group:
                yield group
            group = [int(rows_K[place]), int(rows_K[place + 1])]
        if group:
            yield group


def write_index(folder: Path, parts: Iterable[Part], dropped_D: IntArray, count: int) -> None:
    """Writes the index of the `count` documents that are left when the rows `dropped_D` (ascending) are."""
    with (folder / HASHES).open("wb") as hashes_file, (folder / ROWS).open("wb") as rows_file:
        for hashes_K, rows_K in parts:
            kept_K = ~np.isin(rows_K, dropped_D)
            rows_L = rows_K[kept_K]
            hashes_K[kept_K].tofile(hashes_file)
            (rows_L - np.searchsorted(dropped_D, rows_L)).astype("<i8").tofile(rows_file)
    bits = bucket_bits(count)
    hashes_N = np.asarray(np.memmap(folder / HASHES, "<u8", "r"))
    first_B = np.arange(2**bits, dtype=np.uint64) << np.uint64(64 - bits) if bits else np.zeros(1, np.uint64)
    starts_B1 = np.append(np.searchsorted(hashes_N, first_B), count)
    starts_B1.astype("<i8").tofile(folder / BUCKETS)
