"""The real encoder: unit vectors, one forward for both uses, and ranks that make sense."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from calibadv.search.build import build_pipeline
from calibadv.search.encoder import Encoder
from calibadv.search.models import model_fingerprint
from calibadv.search.settings import SearchConfig
from tests.search.fakes import CORPUS


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    logging.getLogger("faiss").setLevel(logging.WARNING)
    return Encoder(SearchConfig())


def test_vectors_and_token_vectors_have_length_one(minilm: Encoder) -> None:
    encoded = minilm.encode_queries(["short", "a rather longer query about nothing", ""])
    assert encoded.vectors.shape == (3, minilm.dim) == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, rtol=1e-5)
    assert [len(tokens) for tokens in encoded.tokens] == [3, 8, 2]  # words plus [CLS] and [SEP]
    for tokens_TD in encoded.tokens:
        np.testing.assert_allclose(np.linalg.norm(tokens_TD, axis=1), 1, rtol=1e-5)


def test_a_text_does_not_depend_on_its_batch(minilm: Encoder) -> None:
    texts = [d.text for d in CORPUS]
    together = minilm.encode_passages(texts)
    for row, text in enumerate(texts):
        alone = minilm.encode_passages([text])
        np.testing.assert_allclose(alone.vectors[0], together.vectors[row], atol=1e-5)
        np.testing.assert_allclose(alone.tokens[0], together.tokens[row], atol=1e-5)
    assert minilm.encode_passages(texts, tokens=False).tokens == ()
    assert minilm.encode_queries([]).vectors.shape == (0, 384)


def test_texts_of_as_many_tokens_share_a_batch_however_long_they_are_written(minilm: Encoder) -> None:
    few, many = "everything something nothing anything a", "a b c d e f g h i j k l m n o p q r s t"
    shapes: list[tuple[int, ...]] = []
    hook = minilm._model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0]["input_ids"].shape)))
    try:
        encoded = minilm.encode_passages([few, many] * 32)
    finally:
        hook.remove()
    assert sorted(shapes) == [(32, 7), (32, 22)]  # no padding
    for row, text in ((0, few), (33, many), (62, few)):
        np.testing.assert_allclose(encoded.vectors[row], minilm.encode_passages([text]).vectors[0], atol=1e-5)
    assert [len(tokens_TD) for tokens_TD in encoded.tokens[:4]] == [7, 22, 7, 22]


def test_its_vectors_are_those_of_sentence_transformers(minilm: Encoder) -> None:
    texts = ["capital of France", "a film director"]
    expected = minilm._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(minilm.encode_queries(texts).vectors, expected, atol=1e-5)


def test_queries_in_bfloat16_are_nearly_those_in_float32_and_passages_are_the_same(minilm: Encoder) -> None:
    half, texts = Encoder(SearchConfig(query_dtype="bfloat16")), [document.text for document in CORPUS]
    queries, expected = half.encode_queries(texts), minilm.encode_queries(texts)
    assert queries.vectors.dtype == np.float32
    cosines = (queries.vectors * expected.vectors).sum(axis=1)
    assert (cosines > 0.999).all()
    assert (cosines < 1).all()  # it is another arithmetic
    assert [len(tokens_TD) for tokens_TD in queries.tokens] == [len(tokens_TD) for tokens_TD in expected.tokens]
    np.testing.assert_array_equal(half.encode_passages(texts).vectors, minilm.encode_passages(texts).vectors)
    assert half.identity == minilm.identity  # what was embedded or built serves both


def test_a_long_text_is_read_up_to_the_token_limit(minilm: Encoder) -> None:
    (tokens,) = minilm.encode_queries(["word " * 2000]).tokens
    assert len(tokens) == 256


@pytest.mark.parametrize("reranker", ["late", "none"])
def test_paraphrases_find_their_document(tmp_path: Path, minilm: Encoder, reranker: str) -> None:
    search = build_pipeline(CORPUS, SearchConfig(reranker=reranker), tmp_path, encoder=minilm)
    found = search.search_batch(["Which city governs France?", "Who made the movie Quiet River?", "seaport in Norway"])
    assert [documents[0].id for documents in found] == ["d0", "d2", "d4"]


def test_a_surrogate_or_null_in_a_query_is_harmless(tmp_path: Path, minilm: Encoder) -> None:
    search = build_pipeline(CORPUS, SearchConfig(), tmp_path, encoder=minilm)
    hostile = ["\ud800", "\x00", "</information>", "[SEP] [CLS] [PAD]", "🦀" * 3000, "\u202e\u200b", ""]
    assert all(len(documents) == 3 for documents in search.search_batch(hostile))


def test_a_prefix_moves_the_vectors_and_is_no_token_of_its_own(minilm: Encoder) -> None:
    prefixed = Encoder(SearchConfig(query_prefix="query: "))
    plain, other = minilm.encode_queries(["harbour town"]), prefixed.encode_queries(["harbour town"])
    assert not np.allclose(plain.vectors, other.vectors, atol=1e-3)
    assert other.token_ids[0].tolist() == plain.token_ids[0].tolist()
    assert len(other.tokens[0]) == len(other.token_ids[0]) == 4  # [CLS] harbour town [SEP]


def test_identity_names_weights_prefixes_and_limit(tmp_path: Path, minilm: Encoder) -> None:
    prefixed = Encoder(SearchConfig(passage_prefix="passage: ", max_tokens=64))
    assert prefixed.identity != minilm.identity
    (tmp_path / "config.json").write_text("{}")
    before = model_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text("{ }")
    assert model_fingerprint(str(tmp_path)) != before
