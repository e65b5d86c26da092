"""How far an embedding is, seen from another process by its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.search.embeddings import embedding_progress, load_or_embed
from calibadv.search.encoder import Encoded
from calibadv.types import Document
from tests.search.fakes import WordEncoder


class Looking(WordEncoder):
    """Looks at the progress whenever it encodes."""

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache, self.seen = cache, list[str | None]()

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        self.seen.append(embedding_progress(self.cache))
        return super().encode_passages(texts, tokens)


def test_documents_are_counted_while_they_are_embedded_and_not_after(tmp_path: Path) -> None:
    encoder = Looking(tmp_path)
    documents = [Document(str(number), "title", f"text {number}") for number in range(5)]
    load_or_embed(documents, encoder, tmp_path, tokens=False, at_once=2)
    assert encoder.seen == [f"{done} of 5 documents are embedded" for done in (0, 2, 4)]
    assert embedding_progress(tmp_path) is None
    assert list(tmp_path.rglob("progress")) == []
