"""The corpus cache: read when nothing changed, written again when anything did, never half there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibadv.search.embeddings import corpus_fingerprint, load_or_embed
from calibadv.search.encoder import Encoded
from calibadv.types import Document
from tests.search.fakes import CORPUS, WordEncoder


def test_second_load_embeds_nothing_and_gives_the_same_vectors(tmp_path: Path) -> None:
    encoder = WordEncoder()
    first = load_or_embed(CORPUS, encoder, tmp_path, tokens=True)
    again = load_or_embed(CORPUS, encoder, tmp_path, tokens=True)
    assert len(encoder.passages) == len(CORPUS)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert isinstance(again.vectors, np.memmap)


def test_token_rows_are_each_documents_own(tmp_path: Path) -> None:
    stored = load_or_embed(CORPUS, WordEncoder(), tmp_path, tokens=True)
    assert stored.tokens is not None
    assert stored.starts is not None
    # "Paris\nParis is the capital of France." has 7 words, and so on.
    assert np.diff(stored.starts).tolist() == [7, 7, 12, 11, 8]
    assert stored.tokens.dtype == np.float16
    expected = WordEncoder().encode_passages(["Oslo\nOslo is a harbour town in Norway."]).tokens[0]
    np.testing.assert_array_equal(stored.tokens[stored.starts[4] : stored.starts[5]], expected)


def test_frequencies_count_the_documents_that_hold_a_token(tmp_path: Path) -> None:
    stored = load_or_embed(CORPUS, WordEncoder(), tmp_path, tokens=True)
    assert stored.frequencies is not None
    (ids,) = WordEncoder().encode_queries(["capital oslo paris unheard"]).token_ids
    # "Paris" is twice in one document, which counts once.
    assert [stored.frequencies[i] if i < len(stored.frequencies) else 0 for i in ids] == [2, 2, 1, 0]


def test_vectors_with_tokens_serve_those_who_want_none(tmp_path: Path) -> None:
    encoder = WordEncoder()
    load_or_embed(CORPUS, encoder, tmp_path, tokens=True)
    load_or_embed(CORPUS, encoder, tmp_path, tokens=False)
    assert len(encoder.passages) == len(CORPUS)


@pytest.mark.parametrize("field", ["id", "title", "text"])
def test_a_changed_document_is_embedded_again(tmp_path: Path, field: str) -> None:
    encoder = WordEncoder()
    load_or_embed(CORPUS, encoder, tmp_path, tokens=False)
    changed = (replace(CORPUS[0], **{field: "Lyon"}), *CORPUS[1:])
    load_or_embed(changed, encoder, tmp_path, tokens=False)
    assert len(encoder.passages) == 2 * len(CORPUS)


def test_fingerprint_separates_fields_order_and_salt() -> None:
    one = [Document("a", "bc", "d"), Document("e", "f", "g")]
    other = [Document("ab", "c", "d"), Document("e", "f", "g")]
    prints = {corpus_fingerprint(c, s) for c, s in ((one, ""), (other, ""), (one[::-1], ""), (one, "x"))}
    assert len(prints) == 4


class _DiesOnce(WordEncoder):
    died = False

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        if not self.died:
            self.died = True
            raise RuntimeError("killed while embedding")
        return super().encode_passages(texts, tokens)


def test_a_run_that_dies_while_embedding_leaves_no_cache(tmp_path: Path) -> None:
    encoder = _DiesOnce()
    with pytest.raises(RuntimeError, match="killed"):
        load_or_embed(CORPUS, encoder, tmp_path, tokens=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert len(load_or_embed(CORPUS, encoder, tmp_path, tokens=True).vectors) == len(CORPUS)


def test_a_truncated_cache_is_built_again(tmp_path: Path) -> None:
    encoder = WordEncoder()
    load_or_embed(CORPUS, encoder, tmp_path, tokens=True)
    vectors = next(tmp_path.glob("embeddings-*/vectors.f32"))
    vectors.write_bytes(vectors.read_bytes()[:-4])
    assert len(load_or_embed(CORPUS, encoder, tmp_path, tokens=True).vectors) == len(CORPUS)
    assert len(encoder.passages) == 2 * len(CORPUS)


def test_tokens_of_another_width_than_the_vector_are_refused_at_the_first_batch(tmp_path: Path) -> None:
    class Narrowed(WordEncoder):
        """Its last layer makes 128 numbers of a text's 256, and leaves the tokens as they were."""

        dim = 128

        def _encode(self, texts: Sequence[str]) -> Encoded:
            whole = super()._encode(texts)
            return replace(whole, tokens=tuple(np.tile(tokens_TD, 2) for tokens_TD in whole.tokens))

    encoder = Narrowed()
    with pytest.raises(ValueError, match=r'have the widths 256 and 128 .* use reranker = "cross" or "none"'):
        load_or_embed(CORPUS, encoder, tmp_path, tokens=True, at_once=2)
    assert len(encoder.passages) == 2
    assert load_or_embed(CORPUS, encoder, tmp_path, tokens=False).vectors.shape == (5, 128)


def test_passages_take_no_more_room_than_the_encoder_reads_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5 * 2 * 256 * 2}))
    encoder = WordEncoder()
    encoder.max_tokens = 2
    assert len(load_or_embed(CORPUS, encoder, tmp_path, tokens=True).vectors) == 5


def test_no_room_on_the_disk_is_said_before_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    encoder = WordEncoder()
    with pytest.raises(ValueError, match='use reranker = "cross"'):
        load_or_embed(CORPUS, encoder, tmp_path, tokens=True)
    assert encoder.passages == []
