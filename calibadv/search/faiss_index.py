"""The FAISS indexes a corpus can have: exact, half precision, HNSW graph, compressed inverted lists (IVF-PQ).

Bytes a vector of width D: flat 4 D (exact), fp16 2 D, hnsw 4 D + 8 hnsw_links, ivfpq pq_bytes + 8. `hnsw_search` and
`ivf_probes` are of the search and may change without building again; the other parameters are built in.

Array legend: N vectors, D width, B queries, K results a query.
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from calibadv.search.index import Nearest
from calibadv.search.settings import SearchConfig
from calibadv.types import FloatArray, IntArray

logger = logging.getLogger(__name__)

_CODES = 256  # centroids of one PQ byte; fewer vectors cannot train them
_POINTS_A_LIST = 39  # FAISS' own minimum for a centroid that means something
_SAMPLED_A_LIST = 64  # vectors a list that training reads: 1.2 million of Wikipedia's 21 million
_ADDED = 65_536  # vectors copied into an index at a time
_PROBE_S = 120  # seconds to import FAISS, open the GPU and search
PROBE = """
import faiss, numpy, sys
resources = faiss.StandardGpuResources()
resources.noTempMemory()
unit = numpy.eye(32, dtype="float32")
index = faiss.index_cpu_to_gpu(resources, int(sys.argv[1]), faiss.IndexFlatIP(32))
index.add(unit)
assert index.search(unit, 1)[1][:, 0].tolist() == list(range(32)), "it finds the wrong neighbours"
"""


def build_parameters(config: SearchConfig, documents: int, dim: int) -> dict[str, int]:
    """The parameters that an index of `documents` vectors of width `dim` is built with; empty for flat and fp16.

    Raises `ValueError` for IVF-PQ over fewer than 256 vectors, or with `pq_bytes` that do not divide `dim`.
    """
    if config.index == "hnsw":
        return {"hnsw_links": config.hnsw_links, "hnsw_build": config.hnsw_build}
    if config.index != "ivfpq":
        return {}
    if documents < _CODES:
        raise ValueError(f"ivfpq needs at least {_CODES} documents to train on; the corpus has {documents}: use 'flat'")
    pq_bytes = config.pq_bytes or max(size for size in range(1, max(1, dim // 4) + 1) if dim % size == 0)
    if dim % pq_bytes:
        raise ValueError(f"pq_bytes = {pq_bytes} does not divide the encoder's width {dim}: use a divisor, or 0")
    lists = config.ivf_lists or max(1, min(round(4 * math.sqrt(documents)), documents // _POINTS_A_LIST))
    return {"ivf_lists": min(lists, documents), "pq_bytes": pq_bytes}


def trained_index(kind: str, vectors_ND: FloatArray, parameters: Mapping[str, int]) -> Any:
    """An empty FAISS inner-product index, trained on a sample of the vectors where its kind needs training."""
    import faiss

    dim = vectors_ND.shape[1]
    index: Any  # FAISS' own types leave out what only some kinds have
    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    if kind == "fp16":
        return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, parameters["hnsw_links"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = parameters["hnsw_build"]
        return index
    assert kind == "ivfpq"
    # "np": no polysemous training, whose minutes of annealing serve a search mode that is not used here.
    lists, pq_bytes = parameters["ivf_lists"], parameters["pq_bytes"]
    index = faiss.index_factory(dim, f"IVF{lists},PQ{pq_bytes}np", faiss.METRIC_INNER_PRODUCT)
    # FAISS warns on stderr below these; `build_parameters` has seen to what can be trained at all.
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    wanted = max(_SAMPLED_A_LIST * parameters["ivf_lists"], _SAMPLED_A_LIST * _CODES)
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors_ND))[:wanted])  # sorted: read along the disk
    index.train(np.ascontiguousarray(vectors_ND[rows], dtype=np.float32))
    return index


def add_rows(index: Any, vectors_ND: FloatArray) -> None:
    """Copies the vectors into the index a few at a time: they may be a memory map larger than memory."""
    for first in range(0, len(vectors_ND), _ADDED):
        index.add(np.ascontiguousarray(vectors_ND[first : first + _ADDED], dtype=np.float32))


def opened(path: Path, config: SearchConfig) -> Any:
    """The FAISS index of a file, memory-mapped where its kind can be, with the search parameters of `config` set."""
    import faiss

    index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    lists = _innermost(index)
    if hasattr(lists, "nprobe"):
        lists.nprobe = min(config.ivf_probes, lists.nlist)
    return on_gpu(index, config.device, faiss)


def _innermost(index: Any) -> Any:
    """The index that searches: a ready one may lie within a transformation, identities of its own or a refinement."""
    import faiss

    while isinstance(index, faiss.IndexPreTransform | faiss.IndexIDMap | faiss.IndexRefine):
        index = faiss.downcast_index(index.base_index if isinstance(index, faiss.IndexRefine) else index.index)
    return index


def search_in(index: Any, config: SearchConfig) -> Nearest:
    """Search in an index that is open. HNSW looks at no fewer candidates than it is asked for."""
    graph = getattr(_innermost(index), "hnsw", None)

    def nearest(vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        if graph is not None:
            graph.efSearch = max(config.hnsw_search, k)
        scores_BK, rows_BK = index.search(np.ascontiguousarray(vectors_BD, dtype=np.float32), k)
        return scores_BK, rows_BK

    return nearest


@cache
def gpu_fault(number: int, program: str = PROBE) -> str:
    """Why FAISS cannot search on a GPU that it sees, in its own words; "" where it can.

    A process of its own tries: a FAISS without code for the GPU's architecture does not raise, it aborts.
    """
    try:
        tried = subprocess.run(
            [sys.executable, "-c", program, str(number)], capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PROBE_S} s"
    last = tried.stderr.strip().rpartition("\n")[2]
    return "" if tried.returncode == 0 else shorten(f"exit code {tried.returncode}: {last}", 400)


def on_gpu(index: Any, device: str, faiss: Any, fault_of: Callable[[int], str] = gpu_fault) -> Any:
    """The index on `device` ("cuda:1") where FAISS was built for GPUs and supports its kind there, else as it was.

    A warning says why it stays on the CPU; "cpu" asks for nothing. ValueError where FAISS cannot search there at all.
    """
    if not device.startswith("cuda"):
        return index
    number = int(device.partition(":")[2] or 0)
    count = getattr(faiss, "get_num_gpus", lambda: 0)()
    if number >= count or not hasattr(faiss, "StandardGpuResources"):
        logger.warning("search: no GPU for the index (device %s, FAISS sees %d): it stays on the CPU", device, count)
        return index
    if fault := fault_of(number):
        raise ValueError(
            f"search.device = {device!r}: the installed FAISS cannot search on this GPU ({fault}); install "
            "'faiss-gpu>=1.15.1' in place of any other FAISS (faiss-gpu-cu12 has no code for H100, H200 and H20), or "
            "set search.device 'cpu'"
        )
    try:
        moved = faiss.index_cpu_to_gpu(_resources(faiss.StandardGpuResources), number, index)
    except RuntimeError as error:
        logger.warning("search: FAISS cannot hold this index on a GPU (%s): it stays on the CPU", error)
        return index
    logger.info("search: the index is on GPU %d", number)
    return moved


@cache
def _resources(make: Callable[[], Any]) -> Any:
    """One for the process: each takes its own scratch memory of every GPU (1.5 GB), and an index may be many pieces."""
    return make()
