"""Index folders: built once, in pieces that answer as a whole, and refused when they are of something else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from calibadv.search.build import build_pipeline, origin_of
from calibadv.search.encoder import passage_text
from calibadv.search.manifest import IndexManifest, Origin, read_manifest, write_manifest
from calibadv.search.settings import SearchConfig
from calibadv.search.stored_index import from_file, load_or_build, open_index, open_pieces, piece_path, share_pieces
from calibadv.types import FloatArray
from tests.search.fakes import CORPUS, WordEncoder
from tests.search.test_faiss_index import unit_vectors

QUERIES = ["capital of France", "Oslo"]
VECTORS = unit_vectors(300)
ORIGIN = Origin("c0ffee", 300, "minilm", "w|256||", "", "", 256, 16)


def build(folder: Path, kind: str = "flat", rows_a_piece: int = 1000) -> Path:
    return load_or_build(lambda: VECTORS, ORIGIN, SearchConfig().but(index=kind), folder, rows_a_piece=rows_a_piece)


def never() -> FloatArray:
    raise AssertionError("built again")


@pytest.mark.parametrize("kind", ["flat", "fp16", "hnsw", "ivfpq"])
def test_it_is_built_once_and_described(tmp_path: Path, kind: str) -> None:
    folder = build(tmp_path, kind, rows_a_piece=128)
    assert load_or_build(never, ORIGIN, SearchConfig().but(index=kind), tmp_path, rows_a_piece=128) == folder
    manifest = read_manifest(folder)
    assert (manifest.origin, manifest.kind, manifest.rows) == (ORIGIN, kind, (128, 128, 44))
    assert manifest.starts == (0, 128, 256)


@pytest.mark.parametrize("kind", ["flat", "fp16", "ivfpq"])
def test_pieces_find_what_the_whole_finds(tmp_path: Path, kind: str) -> None:
    config, queries = SearchConfig().but(index=kind), unit_vectors(8, seed=2)
    whole = open_index(build(tmp_path, kind), ORIGIN, config)
    cut = open_index(build(tmp_path, kind, rows_a_piece=70), ORIGIN, config)
    (scores, rows), (cut_scores, cut_rows) = whole(queries, 12), cut(queries, 12)
    np.testing.assert_array_equal(rows, cut_rows)
    np.testing.assert_allclose(scores, cut_scores, atol=1e-5)


def test_a_shard_answers_with_rows_of_the_whole_corpus(tmp_path: Path) -> None:
    folder = build(tmp_path, rows_a_piece=100)
    last = open_pieces(folder, read_manifest(folder), [2], SearchConfig())
    assert last(VECTORS[250:251], 1)[1].tolist() == [[250]]


def test_pieces_are_shared_evenly_among_neighbours() -> None:
    assert share_pieces(5, 2) == ((0, 1), (2, 3, 4))
    assert share_pieces(3, 3) == ((0,), (1,), (2,))
    for shards in (0, 4):
        with pytest.raises(ValueError, match=rf"{shards} shards of an index of 3 pieces; expected 1 to 3"):
            share_pieces(3, shards)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corpus": "f00d"}, "corpus: the index has 'c0ffee', the settings give 'f00d'"),
        ({"documents": 301}, "documents: the index has 300, the settings give 301"),
        (
            {"query_prefix": "query: ", "identity": "w|256|query: |"},
            "query_prefix: the index has '', the settings give",
        ),
        ({"max_tokens": 128, "identity": "w|128||"}, "max_tokens: the index has 256, the settings give 128"),
        ({"encoder": "intfloat/e5", "identity": "v|256||"}, "the index has 'minilm' .*the settings 'intfloat/e5'"),
    ],
)
def test_an_index_of_something_else_is_refused_with_both_values(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = build(tmp_path)
    with pytest.raises(ValueError, match=rf"(?s){said}.*build one for these with workflows/build_index.py"):
        open_index(folder, replace(ORIGIN, **change), SearchConfig())  # type: ignore[arg-type]


def test_an_encoder_of_another_name_but_the_same_weights_fits(tmp_path: Path) -> None:
    open_index(build(tmp_path), replace(ORIGIN, encoder="a/folder"), SearchConfig())


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    folder = build(tmp_path, rows_a_piece=150)
    piece_path(folder, 0).rename(piece_path(folder, 7))
    with pytest.raises(ValueError, match=r"piece-00000\.faiss is missing"):
        open_index(folder, ORIGIN, SearchConfig())
    other = faiss.IndexFlatIP(16)
    other.add(VECTORS[:10])
    faiss.write_index(other, str(piece_path(folder, 0)))
    with pytest.raises(ValueError, match="holds 10 vectors of width 16; its manifest says 150"):
        open_index(folder, ORIGIN, SearchConfig())
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is no manifest of an index"):
        open_index(folder, ORIGIN, SearchConfig())
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is not there, so nothing says what"):
        open_index(folder, ORIGIN, SearchConfig())


def test_vectors_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(299, 16\); expected \(300, 16\)"):
        load_or_build(lambda: VECTORS[:-1], ORIGIN, SearchConfig(), tmp_path)


@pytest.mark.parametrize("kind", ["fp16", "hnsw"])
def test_a_pipeline_builds_its_index_once_and_finds_what_exact_search_finds(tmp_path: Path, kind: str) -> None:
    encoder = WordEncoder()
    exact = build_pipeline(CORPUS, SearchConfig(reranker="none"), tmp_path, encoder=encoder).search_batch(QUERIES)
    settings = SearchConfig(reranker="none").but(index=kind)
    found = build_pipeline(CORPUS, settings, tmp_path, encoder=encoder).search_batch(QUERIES)
    assert [documents[0].id for documents in found] == [documents[0].id for documents in exact] == ["d0", "d4"]
    (manifest,) = tmp_path.glob("index-*/manifest.json")
    assert json.loads(manifest.read_text())["origin"] == asdict(origin_of(CORPUS, settings, encoder))
    passages = len(encoder.passages)
    assert build_pipeline(CORPUS, settings, tmp_path, encoder=encoder).search_batch(QUERIES) == found
    assert len(encoder.passages) == passages


def test_a_ready_folder_takes_the_place_of_the_embedded_corpus(tmp_path: Path) -> None:
    encoder, settings = WordEncoder(), SearchConfig(reranker="none")
    vectors = encoder.encode_passages([passage_text(d) for d in CORPUS]).vectors
    origin = origin_of(CORPUS, settings, encoder)
    folder = load_or_build(lambda: vectors, origin, SearchConfig(index="fp16"), tmp_path / "built", rows_a_piece=2)
    encoder.passages.clear()
    ready = settings.but(faiss_index=str(folder))
    (found,) = build_pipeline(CORPUS, ready, tmp_path / "served", encoder=encoder).search_batch(["harbour town"])
    assert found[0].id == "d4"
    assert encoder.passages == []
    with pytest.raises(ValueError, match="does not fit: corpus: the index has"):
        build_pipeline(CORPUS[::-1], ready, tmp_path / "served", encoder=encoder)


def flat_file(path: Path, index: object) -> Path:
    faiss.write_index(index, str(path))
    return path


def test_a_ready_file_is_searched_and_what_cannot_be_checked_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = faiss.IndexFlatIP(16)
    index.add(VECTORS)
    path = flat_file(tmp_path / "flat.index", index)
    assert from_file(path, ORIGIN, SearchConfig())(VECTORS[7:8], 1)[1].tolist() == [[7]]
    assert "no flat.index.manifest.json" in caplog.text
    write_manifest(tmp_path, IndexManifest(ORIGIN, "flat"))
    (tmp_path / "manifest.json").rename(tmp_path / "flat.index.manifest.json")
    caplog.clear()
    from_file(path, ORIGIN, SearchConfig())
    assert caplog.text == ""
    with pytest.raises(ValueError, match="corpus: the index has 'c0ffee', the settings give 'f00d'"):
        from_file(path, replace(ORIGIN, corpus="f00d"), SearchConfig())


def test_a_ready_file_of_another_corpus_encoder_or_metric_is_refused(tmp_path: Path) -> None:
    index = faiss.IndexFlatL2(4)
    index.add(VECTORS[:2, :4].copy())
    path = flat_file(tmp_path / "l2.index", index)
    with pytest.raises(ValueError, match="holds 2 vectors of width 4; the corpus has 300 documents"):
        from_file(path, ORIGIN, SearchConfig())
    with pytest.raises(ValueError, match="expected an inner-product index"):
        from_file(path, replace(ORIGIN, documents=2, dim=4), SearchConfig())
    with pytest.raises(ValueError, match="is not there; give a ready index"):
        from_file(tmp_path / "none.index", ORIGIN, SearchConfig())
