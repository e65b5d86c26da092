"""A ready FAISS file in the place of the embedded corpus."""

from __future__ import annotations

from pathlib import Path

import faiss
import pytest

from calibadv.search.build import build_pipeline
from calibadv.search.encoder import passage_text
from calibadv.search.index import from_file
from calibadv.search.settings import SearchSettings
from tests.search.fakes import CORPUS, WordEncoder


def test_a_ready_index_finds_what_the_embedded_corpus_finds(tmp_path: Path) -> None:
    encoder = WordEncoder()
    index = faiss.IndexFlatIP(encoder.dim)
    index.add(encoder.encode_passages([passage_text(d) for d in CORPUS]).vectors)
    faiss.write_index(index, str(tmp_path / "flat.index"))
    encoder.passages.clear()
    ready = SearchSettings(reranker="none", faiss_index=str(tmp_path / "flat.index"))
    found = build_pipeline(CORPUS, ready, tmp_path, encoder=encoder).search_batch(["capital of France", "Oslo"])
    assert encoder.passages == []
    embedded = build_pipeline(CORPUS, SearchSettings(reranker="none"), tmp_path, encoder=encoder)
    assert found == embedded.search_batch(["capital of France", "Oslo"])


def test_an_index_of_another_corpus_encoder_or_metric_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l2.index"
    index = faiss.IndexFlatL2(4)
    index.add(WordEncoder().encode_passages(["a", "b"]).vectors[:, :4].copy())
    faiss.write_index(index, str(path))
    with pytest.raises(ValueError, match="holds 2 vectors of width 4; the corpus has 3 documents"):
        from_file(path, documents=3, dim=4)
    with pytest.raises(ValueError, match="expected an inner-product index"):
        from_file(path, documents=2, dim=4)
    with pytest.raises(ValueError, match="is not a file"):
        from_file(tmp_path / "none.index", documents=2, dim=4)
