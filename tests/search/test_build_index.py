"""`workflows/build_index.py` from a corpus file to an index that a pipeline opens, also after an interruption."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from calibadv.data.corpus_store import build_store
from calibadv.search.build import build_pipeline
from calibadv.search.embed_shards import embed_shard, plan_shards
from calibadv.search.embeddings import corpus_identity, embeddings_folder
from calibadv.search.encoder import default_prefixes
from calibadv.search.settings import SearchConfig
from tests.search.fakes import CORPUS, WordEncoder
from workflows import build_index


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


def build(arguments: Sequence[str], encoder: WordEncoder) -> int:
    return build_index.main(arguments, make_encoder=lambda _: encoder)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in CORPUS))
    return path


def test_an_index_in_pieces_is_linked_and_served(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    link = tmp_path / "ready.index"
    arguments = [str(corpus), "--cache-dir", str(tmp_path / "cache"), "--index", "fp16", "--rows-a-piece", "2"]
    assert build([*arguments, "--rows-a-shard", "2", "--link", str(link)], encoder) == 0
    assert [path.name for path in sorted(link.iterdir())][1:] == [f"piece-0000{piece}.faiss" for piece in range(3)]
    encoder.passages.clear()
    assert build([*arguments, "--link", str(link)], encoder) == 0
    settings = SearchConfig(reranker="none", faiss_index=str(link))
    served = build_pipeline(CORPUS, settings, tmp_path / "other", encoder=encoder)
    assert served.search_batch(["harbour town"])[0][0].id == "d4"
    assert encoder.passages == []


def test_an_exact_index_is_built_where_it_is_to_be_linked(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    link = tmp_path / "ready.index"
    arguments = [str(corpus), "--cache-dir", str(tmp_path / "cache"), "--index", "flat", "--link", str(link)]
    assert build(arguments, encoder) == 0
    assert [path.name for path in sorted(link.iterdir())][1:] == ["piece-00000.faiss"]


def test_only_missing_shards_are_embedded(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = embeddings_folder(corpus_identity(CORPUS), encoder, tmp_path)
    embed_shard(CORPUS, WordEncoder(), plan_shards(5, 2)[1], folder.with_name(f"{folder.name}.shards"))
    with caplog.at_level(logging.INFO):
        assert build([str(corpus), "--cache-dir", str(tmp_path), "--rows-a-shard", "2"], encoder) == 0
    assert "2 of 3 shards are missing" in caplog.text
    assert [text.partition("\n")[0] for text in encoder.passages] == ["Paris", "Berlin", "Oslo"]
    assert "no index to build" in caplog.text  # exact search reads the embeddings
    assert build_pipeline(CORPUS, SearchConfig(reranker="none"), tmp_path, encoder=encoder).search_batch(["Oslo"])
    assert len(encoder.passages) == 3


def test_a_store_is_searched_like_the_list(tmp_path: Path, encoder: WordEncoder) -> None:
    store = build_store(CORPUS, tmp_path / "store")
    assert build([str(tmp_path / "store"), "--cache-dir", str(tmp_path), "--rows-a-shard", "4"], encoder) == 0
    assert len(encoder.passages) == 5
    for settings in (SearchConfig(reranker="none"), SearchConfig(), SearchConfig(retriever="hybrid")):
        found = build_pipeline(store, settings, tmp_path, encoder=encoder).search_batch(["harbour town Norway"])
        listed = build_pipeline(CORPUS, settings, tmp_path / "list", encoder=encoder).search_batch(
            ["harbour town Norway"]
        )
        assert found == listed


def test_what_cannot_be_built_is_said_before_embedding(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with pytest.raises(ValueError, match="ivfpq needs at least 256 documents"):
        build([str(corpus), "--cache-dir", str(tmp_path), "--index", "ivfpq"], encoder)
    with pytest.raises(ValueError, match=r"hnsw_links = '1': Input should be greater than or equal to 2"):
        build([str(corpus), "--cache-dir", str(tmp_path), "--index", "hnsw", "--hnsw-links", "1"], encoder)
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file"):
        build([str(tmp_path / "none.jsonl")], encoder)
    assert encoder.passages == []


def test_a_link_never_takes_the_place_of_a_file(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    arguments = [str(corpus), "--cache-dir", str(tmp_path), "--index", "hnsw", "--link", str(corpus)]
    with pytest.raises(ValueError, match="is there and is no link"):
        build(arguments, encoder)
    assert encoder.passages


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", ("query: ", "passage: ")),
        ("/models/multilingual-e5-large", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", ("", "")),
        ("intfloat/e5-mistral-7b-instruct", ("", "")),
        ("minilm", ("", "")),
        ("org/le5-base", ("", "")),
    ],
)
def test_e5_has_prefixes_of_its_own(name: str, expected: tuple[str, str]) -> None:
    assert default_prefixes(name) == expected
