"""What a corpus store costs: `python -m benchmarks.corpus_store [--passages N] [--folder FOLDER]`.

A generated corpus is built and looked up, each in a process of its own; prints a row of Markdown.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("corpus_store")  # before what takes seconds to import

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from calibadv.data.corpus_store import CorpusStore, build_store
from calibadv.types import Document
from workflows.command import run_command

HEADER = (
    "| passages | on disk, GB | build, s | peak memory of the build, MB | open, ms "
    "| by id, µs (p50 / p99) | by row, µs (p50 / p99) | memory when looking up, MB (own / mapped) |"
)
RULE = "|---:|---:|---:|---:|---:|---:|---:|---:|"

_TEXT_CHARS = 630  # of a passage of 100 words, as in wiki-18
_MB = 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BuildCost:
    """Of building a store: seconds, the process's peak resident memory and the files' size, both in bytes."""

    seconds: float
    peak_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class LookUpCost:
    """Of opening a store and looking up random documents; (p50, p99) in seconds, memory in bytes.

    `own_bytes` is what no other process shares; `mapped_bytes` are pages of files, which the system takes back at will.
    """

    open_s: float
    by_id_s: tuple[float, float]
    by_row_s: tuple[float, float]
    own_bytes: int
    mapped_bytes: int


def fresh_process() -> Executor:
    """A process of its own for each part, whose memory is that part's alone."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def benchmark_row(
    folder: Path, passages: int, *, look_ups: int = 20_000, process_of: Callable[[], Executor] = fresh_process
) -> str:
    """A row of the Markdown table of `HEADER` for a generated corpus of that many passages, written into `folder`."""
    with process_of() as process:
        build = process.submit(build_generated, folder, passages).result()
    with process_of() as process:
        cost = process.submit(look_up, folder, look_ups).result()
    by_id, by_row = (" / ".join(f"{1e6 * seconds:.1f}" for seconds in pair) for pair in (cost.by_id_s, cost.by_row_s))
    return (
        f"| {passages:,} | {build.disk_bytes / 1e9:.2f} | {build.seconds:.0f} | {build.peak_bytes / _MB:.0f} "
        f"| {1e3 * cost.open_s:.1f} | {by_id} | {by_row} | {cost.own_bytes / _MB:.0f} / {cost.mapped_bytes / _MB:.0f} |"
    )


def generated(passages: int) -> Iterator[Document]:
    """Passages of wiki-18's length in made-up words, with ids; cheap, so that it is the build that is measured."""
    rng = random.Random(0)
    words = ["".join(rng.choices("aeioubcdfglmnprst", k=rng.randint(2, 9))) for _ in range(20_000)]
    book = " ".join(rng.choices(words, k=200_000))
    for row in range(passages):
        start = rng.randrange(len(book) - _TEXT_CHARS)
        yield Document(f"passage-{row}", f"Topic {row // 7}", book[start : start + _TEXT_CHARS])


def build_generated(folder: Path, passages: int) -> BuildCost:
    """The cost of building the store of `generated`, generating included."""
    start = time.perf_counter()
    store = build_store(generated(passages), folder)
    seconds = time.perf_counter() - start
    return BuildCost(seconds, _memory("VmHWM"), sum(store.manifest.sizes.values()))


def look_up(folder: Path, look_ups: int) -> LookUpCost:
    """The cost of so many random look-ups in a store of `generated`, each timed by itself."""
    start = time.perf_counter()
    store = CorpusStore(folder)
    open_s = time.perf_counter() - start
    rng = random.Random(1)
    rows = [rng.randrange(len(store)) for _ in range(look_ups)]
    ids = [f"passage-{rng.randrange(len(store))}" for _ in range(look_ups)]
    by_id, by_row = _percentiles(store.by_id, ids), _percentiles(store.__getitem__, rows)
    return LookUpCost(open_s, by_id, by_row, _memory("RssAnon"), _memory("RssFile"))


def _percentiles(call: Callable[[T], Document], arguments: list[T]) -> tuple[float, float]:
    seconds = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.percentile(seconds, (50, 99))
    return float(p50), float(p99)


def _memory(field: str) -> int:
    """Bytes of this process that Linux counts as `field` of /proc/self/status."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def main(arguments: Sequence[str] | None = None, *, row_of: Callable[[Path, int], str] = benchmark_row) -> int:
    """0: measured; the row is on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus_store", description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the store is built (default: a temporary folder)")
    known = parser.parse_args(arguments)
    if known.passages < 1:
        raise ValueError(f"--passages {known.passages}; expected at least 1")
    with tempfile.TemporaryDirectory() as temporary:
        row = row_of(known.folder or Path(temporary) / "store", known.passages)
    sys.stdout.write(f"{HEADER}\n{RULE}\n{row}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
