"""The search tool by one real query: of the server that is named, or of a pipeline over the corpus's first passages."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibadv.doctor.data import first_documents, first_questions
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.model_source import cached_folder
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.elsewhere import named, search_elsewhere
from calibadv.search.models import needed_models
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

PASSAGES = 64  # that a pipeline is built over here: seconds, also with an encoder on a CPU
NAME = "search"


def retriever(subject: Subject) -> Iterator[Finding]:
    """Asks the first test question. A run asks after its index is built, which may take hours."""
    search, (question,) = subject.config.search, first_questions(subject.files["test"], 1)
    if search.elsewhere:
        yield of_server(search, question.text)
    else:
        yield of_pipeline(search, first_documents(subject.files["corpus"], PASSAGES), question.text)


def of_server(config: SearchConfig, query: str) -> Finding:
    """What the server or function that the settings name answers, asked as rollouts ask it, but once."""

    async def asked() -> Sequence[Document]:
        return await search_elsewhere(config.but(patience_s=0.0))()(query)

    try:
        documents = asyncio.run(asked())
    except SearchFailed as error:
        return failed(NAME, str(error), "start the server, or mend search.url, search.url_shape and search.token_env")
    if not documents:
        said = f"{named(config)}: no document for a question of the data set"
        return failed(NAME, said, "mend the server, or choose another search.url_shape")
    return passed(NAME, f"the server gave {_said(documents)} for {query!r}")


def of_pipeline(config: SearchConfig, documents: Sequence[Document], query: str) -> Finding:
    """What the configured retriever and reranker find among the corpus's first passages, in this process."""
    if lacking := lacks(config):
        return warned(NAME, f"not tried: {lacking}", "run the doctor where the retriever will run")
    from calibadv.search.build import build_pipeline

    with tempfile.TemporaryDirectory() as folder:
        (found,) = build_pipeline(documents, config.but(faiss_index=""), folder).search_batch([query])
    tried = f"{config.retriever}, reranker {config.reranker}, over {len(documents)} passages"
    return passed(NAME, f"{tried}: {_said(found)}")


def lacks(config: SearchConfig) -> str:
    """What the pipeline needs and this machine lacks: models that the run will fetch, GPUs elsewhere."""
    import torch

    wanted = needed_models(config).values()
    missing = [f"the model {name}, which the run will fetch" for name in wanted if not _here(name)]
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        missing.append(f"the device {config.device}")
    return ", ".join(missing)


def _here(model: str) -> bool:
    return "/" not in model or Path(model).is_dir() or cached_folder(model) is not None


def _said(documents: Sequence[Document]) -> str:
    titles = ", ".join(repr(document.title[:40]) for document in documents)
    return f"{len(documents)} documents ({titles})" if documents else "nothing"
