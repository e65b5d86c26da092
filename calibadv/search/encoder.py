"""Text to vectors: one forward gives the pooled vector (retrieval) and the token vectors (late interaction).

Array legend: B texts, T tokens of one text (special tokens included, padding not), D embedding width.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calibadv.garbage import uncollected
from calibadv.model_source import loadable
from calibadv.search.models import model_fingerprint, resolve_model
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, FloatArray, IntArray

PREPARED = 32  # batches whose texts are tokenised together, and sorted by their tokens
_E5 = re.compile(r"(^|-)e5-(small|base|large)")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of B texts, all of length 1, so that inner products are cosines."""

    vectors: FloatArray  # [B, D]
    tokens: tuple[FloatArray, ...]  # B arrays [T, D]; empty when they were not asked for
    token_ids: tuple[IntArray, ...] = ()  # B arrays [T], which token each row of `tokens` is; empty with them


class TextEncoder(Protocol):
    """Queries and passages in, unit vectors out. `identity` changes whenever the vectors would."""

    @property
    def identity(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> Encoded: ...

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded: ...


def passage_text(document: Document) -> str:
    """What is embedded, indexed and reranked of a document: its title, a new line, its text."""
    return f"{document.title}\n{document.text}" if document.title else document.text


class Encoder:
    """The sentence-transformers model of `config.encoder`. Never runs a model's own code.

    Raises `ValueError` when the packaged weights are not installed, `OSError` (of the library) when a hub model cannot
    be fetched. `config.threads` is torch's thread count for the whole process; None leaves it.
    """

    def __init__(self, config: SearchConfig) -> None:
        with uncollected():
            import torch
            from sentence_transformers import SentenceTransformer

            if config.threads is not None:
                torch.set_num_threads(config.threads)
            source = resolve_model(config.encoder)
            place = loadable(source)
            # A folder is complete: a hub look-up for it would only add time-outs on a machine without network.
            self._model: Any = SentenceTransformer(
                place, device=config.device, trust_remote_code=False, local_files_only=Path(place).is_dir()
            )
        self._model.eval()
        own_limit = self._model.max_seq_length or config.max_tokens
        self._model.max_seq_length = min(own_limit, config.max_tokens)
        # Passages stay in float32, so that what is cached or built of them does not depend on how queries are computed.
        dtype = getattr(torch, config.query_dtype)
        self._query_model = self._model if dtype == torch.float32 else copy.deepcopy(self._model).to(dtype)
        self._query_prefix, self._passage_prefix = prefixes(config)
        self._batch_size = config.batch_size
        self._identity = "|".join(
            (model_fingerprint(source), str(self._model.max_seq_length), self._query_prefix, self._passage_prefix)
        )

    @property
    def identity(self) -> str:
        """Names the weights, the token limit and the prefixes: equal identities give equal vectors."""
        return self._identity

    @property
    def dim(self) -> int:
        """D."""
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        """Of a text: the settings', or the model's own where that is less."""
        return int(self._model.max_seq_length)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Vectors and token vectors of queries, in the order given. No text gives empty arrays."""
        return self._encode(self._query_model, texts, self._query_prefix, tokens=True)

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        """Vectors of passages, and their token vectors unless `tokens` is false, in the order given."""
        return self._encode(self._model, texts, self._passage_prefix, tokens=tokens)

    def _encode(self, model: Any, plain: Sequence[str], prefix: str, tokens: bool) -> Encoded:
        import torch
        from torch.nn.functional import normalize

        texts = [prefix + text for text in plain]
        # Late interaction compares what a text says: "query" says nothing of what is asked.
        prefix_rows = _prefix_rows(model.tokenizer, prefix)
        vectors_BD = np.zeros((len(texts), self.dim), dtype=np.float32)
        token_rows: list[FloatArray] = [np.zeros((0, self.dim), dtype=np.float32)] * (len(texts) if tokens else 0)
        token_ids: list[IntArray] = [np.zeros(0, dtype=np.int64)] * len(token_rows)
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(texts), PREPARED * self._batch_size):
            prepared = by_length[start : start + PREPARED * self._batch_size]
            features = model.preprocess([texts[row] for row in prepared])
            for batch, columns_T in _batches(features["attention_mask"], self._batch_size):
                rows = [prepared[place] for place in batch]
                with torch.inference_mode():
                    given = {
                        key: value[batch][:, columns_T].to(model.device) if isinstance(value, torch.Tensor) else value
                        for key, value in features.items()
                    }
                    ids_BT = given["input_ids"].cpu().numpy()
                    out = model(given)
                    vectors_BD[rows] = normalize(out["sentence_embedding"].float(), dim=-1).cpu().numpy()
                    if tokens:
                        tokens_BTD = normalize(out["token_embeddings"].float(), dim=-1).cpu().numpy()
                        mask_BT = out["attention_mask"].bool().cpu().numpy()
                        for position, row in enumerate(rows):
                            mask_T = mask_BT[position]
                            token_rows[row] = np.delete(tokens_BTD[position][mask_T], prefix_rows, axis=0)
                            token_ids[row] = np.delete(ids_BT[position][mask_T], prefix_rows).astype(np.int64)
        return Encoded(vectors=vectors_BD, tokens=tuple(token_rows), token_ids=tuple(token_ids))


def _batches(mask_BT: Any, size: int) -> Iterator[tuple[list[int], Any]]:
    """Texts of as many tokens as each other share a batch, for padding is computed like any other token.

    Yields which texts, and the columns where any of them has a token.
    """
    order = mask_BT.sum(dim=1).argsort(stable=True).tolist()
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        yield batch, mask_BT[batch].bool().any(dim=0)


def _prefix_rows(tokenizer: Any, prefix: str) -> slice:
    """Where the tokens of the prefix are in a text that begins with it; empty for a blank prefix."""
    if not prefix.strip():
        return slice(0, 0)
    own = tokenizer(prefix.strip(), add_special_tokens=False)["input_ids"]
    whole = tokenizer(prefix.strip())["input_ids"]
    first = next(place for place in range(len(whole)) if whole[place : place + len(own)] == own)
    return slice(first, first + len(own))


class RememberedQueries:
    """`encoder` that remembers its last queries, so that retrieval and late interaction share one forward."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._asked: list[str] | None = None
        self._encoded = Encoded(np.zeros((0, 0), dtype=np.float32), ())

    @property
    def identity(self) -> str:
        """The wrapped encoder's: remembering changes no vector."""
        return self._encoder.identity

    @property
    def dim(self) -> int:
        """D of the wrapped encoder."""
        return self._encoder.dim

    @property
    def max_tokens(self) -> int:
        """Of the wrapped encoder."""
        return self._encoder.max_tokens

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """As the wrapped encoder; the same texts as in the last call cost no forward."""
        if self._asked != list(texts):
            self._asked, self._encoded = None, self._encoder.encode_queries(texts)
            self._asked = list(texts)
        return self._encoded

    def encode_passages(self, texts: Sequence[str], tokens: bool = True) -> Encoded:
        """As the wrapped encoder; nothing is remembered."""
        return self._encoder.encode_passages(texts, tokens)


def prefixes(config: SearchConfig) -> tuple[str, str]:
    """(query prefix, passage prefix) in force: those of the settings, else the encoder's own."""
    query_prefix, passage_prefix = default_prefixes(config.encoder)
    return config.query_prefix or query_prefix, config.passage_prefix or passage_prefix


def default_prefixes(name: str) -> tuple[str, str]:
    """(query prefix, passage prefix) that the encoder was trained with, read off its name; empty for all but E5.

    E5 (Wang et al. 2022, section 4) ranks visibly worse without them. Its instruction-tuned relatives (e5-mistral,
    multilingual-e5-large-instruct) want a task description instead, which only the user knows: empty here.
    """
    model = Path(name).name.lower()
    if _E5.search(model) and "instruct" not in model:
        return "query: ", "passage: "
    return "", ""
