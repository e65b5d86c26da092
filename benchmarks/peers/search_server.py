"""A retrieval server of the design of Search-R1's, which no package registry carries; our own code and minimal.

One process, FastAPI on uvicorn, a plain function as the endpoint (so that requests run in its threads), and each
request encodes and searches by itself. The packaged encoder in float32, an exact index, no reranker.
`python -m benchmarks.peers.search_server FOLDER PORT`, with what `benchmarks.retrieval_http` wrote into the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from calibadv.json_lines import read_json_lines
from calibadv.search.models import resolve_model

MAX_TOKENS = 256


class Request(BaseModel):
    """Search-R1's."""

    queries: list[str]
    topk: int = 3
    return_scores: bool = False


def server(folder: Path) -> FastAPI:
    """The application over the corpus and the FAISS file of `folder`."""
    import faiss
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    encoder = SentenceTransformer(str(resolve_model("minilm")), device="cpu", local_files_only=True)
    encoder.max_seq_length = MAX_TOKENS
    index = faiss.read_index(str(folder / "corpus.faiss"))
    documents = read_json_lines(folder / "corpus.jsonl")
    app = FastAPI()

    @app.post("/retrieve")
    def retrieve(request: Request) -> dict[str, Any]:
        vectors_BD = encoder.encode(request.queries, normalize_embeddings=True, show_progress_bar=False)
        scores_BK, rows_BK = index.search(vectors_BD, request.topk)
        return {
            "result": [
                [_entry(documents[row], float(score)) for score, row in zip(*ranked, strict=True)]
                for ranked in zip(scores_BK, rows_BK, strict=True)
            ]
        }

    return app


def _entry(document: dict[str, str], score: float) -> dict[str, Any]:
    contents = f'"{document["title"]}"\n{document["text"]}'
    return {"document": {"id": document["id"], "contents": contents}, "score": score}


if __name__ == "__main__":
    uvicorn.run(server(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")
