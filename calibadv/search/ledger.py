"""What search engines have answered, in a file (`search.ledger`): (engine, query) -> documents, once and for good."""

from __future__ import annotations

import json
from pathlib import Path

from calibadv.kept_answers import Engine, KeptAnswers, Mode
from calibadv.sendable import sendable
from calibadv.types import Document


class Ledger(KeptAnswers[tuple[Document, ...]]):
    """The documents that one engine has given."""

    def __init__(self, path: Path, engine: Engine, mode: Mode = "record", *, alone: bool | None = None) -> None:
        super().__init__(path, engine, mode, called="search.ledger", to_text=_written, of_text=_read, alone=alone)


def _written(documents: tuple[Document, ...]) -> str:
    return json.dumps([[d.id, d.title, d.text, d.score] for d in documents])


def _read(text: str) -> tuple[Document, ...]:
    return tuple(Document(*fields) for fields in sendable(json.loads(text)))
