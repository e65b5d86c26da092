"""The kinds of index: what they are built with, that they find their neighbours, and where they run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from calibadv.search.faiss_index import (
    PROBE,
    add_rows,
    build_parameters,
    gpu_fault,
    on_gpu,
    opened,
    search_in,
    trained_index,
)
from calibadv.search.settings import KINDS, SearchConfig
from calibadv.types import FloatArray


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> FloatArray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize(
    ("documents", "dim", "expected"),
    [
        # 4 * sqrt(10,000) = 400 lists would have 25 vectors each: 10,000 / 39.
        (10_000, 384, {"ivf_lists": 256, "pq_bytes": 96}),
        (1_000_000, 768, {"ivf_lists": 4000, "pq_bytes": 192}),
        (256, 100, {"ivf_lists": 6, "pq_bytes": 25}),
        (256, 7, {"ivf_lists": 6, "pq_bytes": 1}),
    ],
)
def test_sizes_of_a_compressed_index_follow_from_the_corpus(documents: int, dim: int, expected: dict[str, int]) -> None:
    assert build_parameters(SearchConfig(index="ivfpq"), documents, dim) == expected


def test_given_parameters_are_built_in_and_those_of_the_search_are_not() -> None:
    given = SearchConfig(index="ivfpq", ivf_lists=8, pq_bytes=4, ivf_probes=3)
    assert build_parameters(given, 1000, 16) == {"ivf_lists": 8, "pq_bytes": 4}
    assert build_parameters(SearchConfig(index="hnsw", hnsw_search=7), 1000, 16) == {
        "hnsw_links": 32,
        "hnsw_build": 200,
    }
    assert build_parameters(SearchConfig(index="fp16"), 1000, 16) == build_parameters(SearchConfig(), 1, 16) == {}


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 256 documents.*the corpus has 255: use 'flat'"):
        build_parameters(SearchConfig(index="ivfpq"), 255, 16)
    with pytest.raises(ValueError, match="pq_bytes = 5 does not divide the encoder's width 16"):
        build_parameters(SearchConfig(index="ivfpq", pq_bytes=5), 1000, 16)


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("fp16", 0.97), ("hnsw", 0.97), ("ivfpq", 0.7)])
def test_every_kind_finds_the_exact_neighbours_after_a_trip_to_disk(tmp_path: Path, kind: str, least: float) -> None:
    vectors, queries, options = unit_vectors(600), unit_vectors(20, seed=1), SearchConfig().but(index=kind)
    index = trained_index(kind, vectors, build_parameters(options, *vectors.shape))
    add_rows(index, vectors)
    faiss.write_index(index, str(tmp_path / "i"))
    scores, rows = search_in(opened(tmp_path / "i", options), options)(queries, 10)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)]
    assert np.mean(shared) >= least
    np.testing.assert_allclose(
        scores[:, 0], np.take_along_axis(queries @ vectors.T, rows[:, :1], axis=1)[:, 0], atol=0.2
    )


@pytest.mark.parametrize("around", ["", "OPQ8,", "IDMap,"])
def test_a_ready_index_is_searched_as_the_settings_say_whatever_lies_around_it(tmp_path: Path, around: str) -> None:
    vectors, queries = unit_vectors(600), unit_vectors(20, seed=1)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]

    def recall(kind: str, options: SearchConfig) -> float:
        index = faiss.index_factory(16, f"{around}{kind}", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add_with_ids(vectors, np.arange(600)) if "IDMap" in around else index.add(vectors)
        faiss.write_index(index, str(tmp_path / "i"))
        _, rows = search_in(opened(tmp_path / "i", options), options)(queries, 10)
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)]))

    assert recall("IVF16,Flat", SearchConfig(ivf_probes=16)) == 1.0  # all of its lists
    assert recall("IVF16,Flat", SearchConfig(ivf_probes=1)) < 0.9
    assert recall("HNSW4,Flat", SearchConfig(hnsw_search=600)) > recall("HNSW4,Flat", SearchConfig(hnsw_search=1))


def test_a_compressed_index_is_built_the_same_twice() -> None:
    vectors = unit_vectors(400)
    options = SearchConfig(index="ivfpq")

    def build() -> bytes:
        index = trained_index("ivfpq", vectors, build_parameters(options, *vectors.shape))
        add_rows(index, vectors)
        return bytes(faiss.serialize_index(index))

    assert build() == build()


class Resources:
    """What FAISS takes of a GPU; remembers how often it was taken."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1


class FakeFaiss(SimpleNamespace):
    """FAISS as built for GPUs: two of them, holding flat indexes only."""

    StandardGpuResources = Resources

    def get_num_gpus(self) -> int:
        return 2

    def index_cpu_to_gpu(self, resources: object, number: int, index: str) -> str:
        assert isinstance(resources, Resources)
        if index != "flat":
            raise RuntimeError("not supported")
        return f"{index} on {number}"


def no_fault(_: int) -> str:
    return ""


def test_an_index_goes_to_the_gpu_that_is_asked_for() -> None:
    assert on_gpu("flat", "cuda:1", FakeFaiss(), no_fault) == "flat on 1"
    assert on_gpu("flat", "cuda", FakeFaiss(), no_fault) == "flat on 0"
    assert on_gpu("flat", "cpu", FakeFaiss()) == "flat"


def test_many_pieces_share_one_processs_gpu_memory() -> None:
    for _ in range(3):
        on_gpu("flat", "cuda:0", FakeFaiss(), no_fault)
    assert Resources.made == 1


@pytest.mark.parametrize(
    ("index", "device", "library", "said"),
    [
        ("hnsw", "cuda:0", FakeFaiss(), "cannot hold this index on a GPU"),
        ("flat", "cuda:2", FakeFaiss(), "FAISS sees 2"),
        ("flat", "cuda:0", SimpleNamespace(), "FAISS sees 0"),
    ],
)
def test_an_index_that_no_gpu_can_hold_stays_and_says_why(
    caplog: pytest.LogCaptureFixture, index: str, device: str, library: SimpleNamespace, said: str
) -> None:
    assert on_gpu(index, device, library, no_fault) == index
    assert said in caplog.text


ABORTS = """
import os, sys
print("Faiss assertion 'err__ == cudaSuccess' failed", "details: CUDA error 209 no kernel image", file=sys.stderr)
sys.stderr.flush()
os.abort()
"""


def test_a_faiss_that_aborts_on_the_gpu_is_refused_in_words_and_ends_no_one_else() -> None:
    with pytest.raises(ValueError, match=r"cuda:0.*exit code -6: Faiss assertion.*error 209.*install 'faiss-gpu>=1"):
        on_gpu("flat", "cuda:0", FakeFaiss(), lambda number: gpu_fault(number, ABORTS))


def test_the_probe_searches_on_the_gpu_that_is_asked_for() -> None:
    fault = gpu_fault(1)  # this FAISS was built without GPUs
    assert "has no attribute 'StandardGpuResources'" in fault
    stand_in = """
import faiss, sys
class Resources:
    def noTempMemory(self): pass
faiss.StandardGpuResources = Resources
faiss.index_cpu_to_gpu = lambda resources, number, index: {1: index}[number]
"""
    assert gpu_fault(1, stand_in + PROBE) == ""
    assert "KeyError: 0" in gpu_fault(0, stand_in + PROBE)


def test_all_kinds_are_tried_above() -> None:
    assert set(KINDS) == {"flat", "fp16", "hnsw", "ivfpq"}
