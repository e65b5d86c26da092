"""The search tool by one real query: of the server that is named, or of a pipeline over the corpus's first passages."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibadv.doctor.data import first_documents, first_questions
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.model_source import cached_folder
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

PASSAGES = 64  # that a pipeline is built over here: seconds, also with an encoder on a CPU
NAME = "search"


def retriever(subject: Subject) -> Iterator[Finding]:
    """Asks the first test question; then, of an index that is ready, what its manifest says."""
    (question,) = first_questions(subject.files["test"], 1)
    if subject.config.search.url:
        yield of_server(subject.config.search, question.text)
        return
    documents = first_documents(subject.files["corpus"], PASSAGES)
    yield of_pipeline(subject.config.search, documents, question.text)
    if subject.config.search.faiss_index:
        yield ready_index(Path(subject.config.search.faiss_index))


def of_server(config: SearchConfig, query: str) -> Finding:
    """What the server at `search.url` answers, asked as rollouts ask it, but once."""
    once = http_search(config.but(patience_s=0.0))
    try:
        documents = asyncio.run(once(query))
    except SearchFailed as error:
        return failed(NAME, str(error), "start the server, or mend search.url, search.url_shape and search.token_env")
    fault = fault_of(documents, config.top_k)
    if fault:
        return failed(NAME, f"{config.url}: {fault}", "mend the server, or choose another search.url_shape")
    return passed(NAME, f"the server gave {_said(documents)} for {query!r}")


def of_pipeline(settings: SearchConfig, documents: Sequence[Document], query: str) -> Finding:
    """What the configured retriever and reranker find among the corpus's first passages, in this process."""
    from calibadv.search.build import build_pipeline

    settings, left_out = runnable(settings)
    with tempfile.TemporaryDirectory() as folder:
        (found,) = build_pipeline(documents, settings, folder).search_batch([query])
    fault = fault_of(found, settings.top_k)
    if fault and not (settings.retriever == "bm25" and not found):  # no word in common with so few passages
        return failed(NAME, fault, "look at search.retriever, search.encoder and search.reranker")
    said = f"{settings.retriever}, reranker {settings.reranker}, over {len(documents)} passages: {_said(found)}"
    if left_out:
        return warned(NAME, f"{said}; not tried: {left_out}", "run the doctor where the retriever will run")
    return passed(NAME, said)


def runnable(settings: SearchConfig) -> tuple[SearchConfig, str]:
    """The settings as far as they can be tried here, and what had to be left out: models to fetch, GPUs elsewhere."""
    import torch

    left_out = []
    settings = settings.but(faiss_index="")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        left_out.append(f"the device {settings.device}")
        settings = settings.but(device="cpu")
    if not _here(settings.encoder) and (settings.retriever != "bm25" or settings.reranker == "late"):
        left_out.append(f"the encoder {settings.encoder}, which the run will fetch")
        settings = settings.but(retriever="bm25", reranker="none", encoder="minilm")
    if settings.reranker == "cross" and not _here(settings.cross_encoder):
        left_out.append(f"the reranker {settings.cross_encoder}, which the run will fetch")
        settings = settings.but(reranker="none")
    return settings, ", ".join(left_out)


def fault_of(documents: Sequence[Document], top_k: int) -> str:
    """What is wrong with the answer to a query; "" if rollouts can read it."""
    if not documents:
        return "no document for a question of the data set"
    if len(documents) > top_k:
        return f"{len(documents)} documents, {top_k} were asked for (search.top_k)"
    for place, document in enumerate(documents, start=1):
        for field, value in (("id", document.id), ("title", document.title), ("text", document.text)):
            if not isinstance(value, str):
                return f"document {place} has the {field} {value!r:.80}, expected a string"
        if not document.text.strip():
            return f"document {place} ({document.id!r:.80}) has no text"
        if not math.isfinite(document.score):
            return f"document {place} has the score {document.score}"
    if len({document.id for document in documents}) < len(documents):
        return "one document twice"
    return ""


def ready_index(path: Path) -> Finding:
    """What a ready index says of itself; that it fits the corpus is checked when the run opens it."""
    from calibadv.search.manifest import MANIFEST, read_manifest

    beside = path.with_name(f"{path.name}.{MANIFEST}")
    if path.is_file() and not beside.is_file():
        remedy = "nothing, if you know that row i of it is document i of the corpus, by this encoder"
        return warned("index", f"{path} has no manifest: nothing says what it was built from", remedy)
    origin = read_manifest(path if path.is_dir() else beside).origin
    return passed("index", f"{path.name}: {origin.documents:,} documents by {origin.encoder}, width {origin.dim}")


def _here(model: str) -> bool:
    """Whether an encoder can be loaded without fetching it."""
    if "/" not in model or Path(model).is_dir():
        return True
    return cached_folder(model) is not None


def _said(documents: Sequence[Document]) -> str:
    titles = ", ".join(repr(document.title[:40]) for document in documents)
    return f"{len(documents)} documents ({titles})" if documents else "nothing"
