"""The laboratory's language: every word is a token; fillers have a grammar, and a tail of words is never used.

Each filler has `SUCCESSORS` words that may follow it, so that whether a transition is legal is known exactly; the tail
is what garbled text can be made of.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calibadv.rollout.dialogues.in_tags import InTags
from calibadv.types import Document, IntArray

VOCABULARY = 1024
KINDS, RELATIONS_A_KIND = 4, 6
RELATIONS = KINDS * RELATIONS_A_KIND
QUERY_WORDS = 4  # that name a relation to the search engine, of graded worth
FIRST_NAMES, LAST_NAMES = 60, 60
FILLERS, SUCCESSORS = 300, 6
LONGEST_RAMBLE = 90

PAD, EOS, PASSAGE_END = "<pad>", "<eos>", ";"
TAGS = ("<think>", "</think>", "<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>")
CONTROL = (PAD, EOS, "what", "of", "?", "so", "then", "find", "no", "again", "done", "guess", PASSAGE_END)


@dataclass(frozen=True)
class Language:
    """The words by their ids, and the fillers' grammar."""

    words: tuple[str, ...]
    successors: dict[str, tuple[str, ...]]  # of each filler, likeliest first
    starts: tuple[str, ...]  # what a ramble may begin with
    first_tail: int  # id of the first word that nobody uses; all later ones are of the tail

    @cached_property
    def id_of(self) -> dict[str, int]:
        """Word -> token id."""
        return {word: index for index, word in enumerate(self.words)}

    @property
    def tail(self) -> tuple[str, ...]:
        """The words that no dialogue uses."""
        return self.words[self.first_tail :]

    def ids(self, words: Iterable[str]) -> list[int]:
        """Token ids of words; KeyError for one that is not in the language."""
        return [self.id_of[word] for word in words]

    def text(self, ids: Iterable[int]) -> str:
        """The words, with blanks between them."""
        return " ".join(self.words[i] for i in ids)

    def ramble(self, rng: random.Random, mean: float) -> list[str]:
        """A walk through the grammar of geometric length with that mean, cut at `LONGEST_RAMBLE` words."""
        walk: list[str] = []
        stop = 1 / (mean + 1)
        while rng.random() > stop and len(walk) < LONGEST_RAMBLE:
            walk.append(rng.choices(self.successors[walk[-1]] if walk else self.starts, ZIPF)[0])
        return walk


ZIPF = tuple(1 / (rank + 1) for rank in range(SUCCESSORS))  # weights of a filler's successors: 1.5 nats a word


def language(size: int = VOCABULARY) -> Language:
    """The language of `size` words; the same for every world. ValueError where no tail would be left."""
    rng = random.Random("language 0")
    words = [*CONTROL, *TAGS]
    words += [f"na{i}" for i in range(FIRST_NAMES)] + [f"nb{i}" for i in range(LAST_NAMES)]
    words += [f"ask{r}" for r in range(RELATIONS)] + [f"rel{r}" for r in range(RELATIONS)]
    words += [query_word(r, j) for r in range(RELATIONS) for j in range(QUERY_WORDS)]
    fillers = [f"w{i}" for i in range(FILLERS)]
    words += fillers
    if size <= len(words):
        raise ValueError(f"a vocabulary of {size} words leaves no tail beside the {len(words)} that dialogues use")
    return Language(
        words=(*words, *(f"x{i}" for i in range(size - len(words)))),
        successors={word: tuple(rng.sample(fillers, SUCCESSORS)) for word in fillers},
        starts=tuple(rng.sample(fillers, SUCCESSORS)),
        first_tail=len(words),
    )


def query_word(relation: int, form: int) -> str:
    """One of the words by which a query names the relation."""
    return f"q{relation}_{form}"


def observed(documents: Sequence[Document]) -> tuple[str, ...]:
    """The words of an observation."""
    words = [word for document in documents for word in (*document.text.split(), PASSAGE_END)]
    return ("<information>", *words, "</information>")


@dataclass(frozen=True)
class LabDialogue(InTags):
    """`rollout.Dialogue` of the language, in tags: a question is its own prompt, a document is its text."""

    lang: Language
    prefill: str = ""

    def prompt_ids(self, question: str) -> IntArray:
        """Token ids [P] of the question and the prefill."""
        return self._encode(question.split())

    def observation_ids(self, documents: Sequence[Document], max_tokens: int) -> IntArray:
        """Token ids [O] of the documents between information tags, then the prefill. They are few and always fit."""
        ids = self._encode(observed(documents))
        assert len(ids) <= max_tokens, f"{len(ids)} tokens of documents, and room for {max_tokens}"
        return ids

    def retry_ids(self) -> IntArray:
        """What a void turn is answered with."""
        return self._encode(["no", "again"])

    def text(self, ids: IntArray) -> str:
        """The words of sampled ids."""
        return self.lang.text(ids.tolist())

    def _encode(self, words: Sequence[str]) -> IntArray:
        return np.array(self.lang.ids([*words, self.prefill] if self.prefill else words), dtype=np.int64)
