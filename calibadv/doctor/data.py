"""The data files: whether their first records can be read, and their prompts have room."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from calibadv.data.corpus import read_documents
from calibadv.data.corpus_store import CorpusStore
from calibadv.data.questions import read_question_rows
from calibadv.doctor.finding import Finding, failed, passed
from calibadv.doctor.subject import Subject
from calibadv.types import Document, Question

FIRST = 100  # records that are read


def data(subject: Subject) -> Iterator[Finding]:
    """Train and test questions and the corpus; with `deep` all of them, and that they fit the recipe."""
    files = subject.files
    for name in ("train", "test"):
        yield readable_questions(f"{name} questions", files[name])
    if subject.config.search.elsewhere:
        yield passed("corpus", "search.url is asked, so that nothing is searched here")
    else:
        yield readable_corpus(files["corpus"])
    if subject.deep:
        yield whole_inputs(subject)


def first_questions(path: Path, number: int = FIRST) -> list[Question]:
    """The first questions of a file. DataError for what cannot be read."""
    return [row.to_question() for row in islice(read_question_rows(path), number)]


def first_documents(path: Path, number: int) -> list[Document]:
    """The first documents of a corpus file or store. DataError for what cannot be read."""
    return list(islice(CorpusStore(path) if path.is_dir() else read_documents(path), number))


def readable_questions(name: str, path: Path) -> Finding:
    """Whether the first questions are questions with answers."""
    try:
        questions = first_questions(path)
    except ValueError as error:
        return failed(name, str(error), "mend the file, or name another with data.train and data.test")
    with_gold = sum(bool(question.gold_doc_ids) for question in questions)
    return passed(name, f"the first {len(questions)} of {path.name} can be read, {with_gold} with gold passages")


def readable_corpus(path: Path) -> Finding:
    """Whether the first passages are passages, or the store is whole."""
    try:
        documents = first_documents(path, FIRST)
        size = f"a store of {len(CorpusStore(path)):,}" if path.is_dir() else f"the first {len(documents)}"
    except (OSError, ValueError) as error:
        return failed("corpus", str(error), "mend the file, or name another with data.corpus")
    return passed("corpus", f"{path.name}: {size} can be read")


def whole_inputs(subject: Subject) -> Finding:
    """What a run does first: reads all questions and the corpus, and checks the longest prompts."""
    from calibadv.training.inputs import resolve_inputs

    resolve_inputs(subject.config)
    return passed("all data", "questions, corpus and the longest prompts are as this recipe needs them")
