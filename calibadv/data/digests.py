"""Digests of what a run or an evaluation depends on: the files of a model, a corpus, questions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from calibadv.data.corpus_store import CorpusStore
from calibadv.files import side_by_side
from calibadv.types import Question, TokenUnit

_MODEL_FILES = (".json", ".safetensors", ".bin", ".txt", ".jinja", ".model")


def model_digest(folder: Path) -> str:
    """A digest of the files that a model is made of, weights, configuration and tokenizer: their names and contents."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file())
    digests = side_by_side(_file_digest, files)
    return _digest(f"{path.name} {digest}" for path, digest in zip(files, digests, strict=True))


def corpus_digest(path: Path) -> str:
    """A digest of a corpus file, or the fingerprint of a prepared store. ValueError if there is neither."""
    if path.is_dir():
        return CorpusStore(path).fingerprint
    if not path.is_file():
        raise ValueError(f"no corpus at {path}: give --corpus a file or the folder of a prepared store")
    return _file_digest(path)


def questions_digest(questions: Iterable[Question]) -> str:
    """A digest of the questions and of all that is reported of them, in order; whichever format they came in."""
    return _digest(json.dumps(_digested(question), sort_keys=True, ensure_ascii=True) for question in questions)


def _digested(question: Question) -> dict[str, Any]:
    """Its values as ever, so that digests of an earlier release stay: gold ids stand for texts and titles."""
    values = {field.name: getattr(question, field.name) for field in fields(question)} | {"gold_passages": ()}
    del values["gold_titles"]
    if question.tokens == TokenUnit.WORDS:
        del values["tokens"]
    return values


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
