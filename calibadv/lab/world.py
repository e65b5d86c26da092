"""The laboratory's world: an encyclopaedia of one-fact passages, questions over chains of facts, a graded retriever.

A passage is "A B rel V W": A B has the relation rel to V W. A question asks for a chain of one to three relations. The
search engine knows four query words a relation, of graded worth, and which are good is what an agent has to find out.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calibadv.lab.language import FIRST_NAMES, KINDS, LAST_NAMES, QUERY_WORDS, RELATIONS_A_KIND, query_word
from calibadv.lab.tasks import PLAIN
from calibadv.types import Document, Question

ENTITIES = 400
MISSING = 0.12  # share of facts without a passage: a quarter of the questions cannot be answered by reading
TOP_K = 3
TITLE, MENTION, RELATION_WORD = 1.0, 0.55, 0.3  # what a word of the query is worth to a passage that has it
WORTH = (1.2, 0.3, -0.3, -0.9)  # of a query word for its relation's passages
NOISE = 1.0  # width of what the engine adds by chance, the same for the same query
LONGEST_QUERY = 12  # distinct words that the engine reads

Name = tuple[str, str]


@dataclass(frozen=True)
class Chain:
    """A question as its maker knows it."""

    question: Question
    relations: tuple[int, ...]  # in the order in which they are to be searched
    path: tuple[int, ...]  # entities; the last is the answer


@dataclass
class World:
    """Entities, facts, passages and the search engine over them, all made from `seed`."""

    seed: int
    hops: Mapping[int, float] = field(default_factory=lambda: PLAIN.hops)  # of a question, and how often
    names: list[Name] = field(init=False)
    facts: list[dict[int, int]] = field(init=False)  # of each entity: relation -> entity
    passages: list[tuple[int, int, int]] = field(init=False)  # (entity, relation, entity) in the corpus

    def __post_init__(self) -> None:
        rng = random.Random(f"world {self.seed}")
        picked = rng.sample(range(FIRST_NAMES * LAST_NAMES), ENTITIES)
        self.names = [(f"na{i // LAST_NAMES}", f"nb{i % LAST_NAMES}") for i in picked]
        kinds = [rng.randrange(KINDS) for _ in range(ENTITIES)]
        self.facts = [
            {kind * RELATIONS_A_KIND + j: rng.randrange(ENTITIES) for j in range(RELATIONS_A_KIND)} for kind in kinds
        ]
        everything = [(e, r, v) for e, known in enumerate(self.facts) for r, v in known.items()]
        self.passages = [fact for fact in everything if rng.random() > MISSING]
        self._found: dict[str, tuple[Document, ...]] = {}

    @cached_property
    def documents(self) -> list[Document]:
        """The passages as documents; the title is whom a passage is about."""
        return [
            Document(str(index), " ".join(self.names[passage[0]]), " ".join(self.words(passage)))
            for index, passage in enumerate(self.passages)
        ]

    def words(self, passage: tuple[int, int, int]) -> tuple[str, ...]:
        """What the passage says: whom it is about, the relation, and to whom."""
        entity, relation, value = passage
        return (*self.names[entity], f"rel{relation}", *self.names[value])

    @cached_property
    def _scores_of(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Of each word: the passages that it speaks for, and how loudly."""
        scores: dict[str, dict[int, float]] = {}

        def add(word: str, passage: int, worth: float) -> None:
            given = scores.setdefault(word, {})
            given[passage] = given.get(passage, 0.0) + worth

        for index, (entity, relation, value) in enumerate(self.passages):
            for word in self.names[entity]:
                add(word, index, TITLE)
            for word in self.names[value]:
                add(word, index, MENTION)
            add(f"rel{relation}", index, RELATION_WORD)
            for form in range(QUERY_WORDS):
                add(query_word(relation, form), index, worth(relation, form))
        return {
            word: (np.array(list(given)), np.array(list(given.values()), np.float32)) for word, given in scores.items()
        }

    async def search(self, query: str) -> tuple[Document, ...]:
        """`find` as a `rollout.SearchFn`."""
        return self.find(query)

    def find(self, query: str) -> tuple[Document, ...]:
        """The best `TOP_K` passages, best first. Equal sets of words find the same."""
        words = sorted(set(query.split()))[:LONGEST_QUERY]
        key = " ".join(words)
        if key not in self._found:
            self._found[key] = self._ranked(words, key)
        return self._found[key]

    def _ranked(self, words: list[str], key: str) -> tuple[Document, ...]:
        chance = np.random.default_rng(zlib.crc32(key.encode()))
        score = NOISE * chance.random(len(self.passages), dtype=np.float32)
        for word in words:
            if word in self._scores_of:
                where, how_much = self._scores_of[word]
                score[where] += how_much
        best = np.argpartition(-score, TOP_K)[:TOP_K]
        return tuple(self.documents[index] for index in best[np.argsort(-score[best], kind="stable")])

    def chain(self, rng: random.Random, id: str) -> Chain:
        """A question over distinct entities, with what methods that read gold labels want to know."""
        while True:
            (hops,) = rng.choices(list(self.hops), list(self.hops.values()))
            path, relations = [rng.randrange(ENTITIES)], list[int]()
            for _ in range(hops):
                relations.append(rng.choice(list(self.facts[path[-1]])))
                path.append(self.facts[path[-1]][relations[-1]])
            if len(set(path)) == len(path):
                break
        words = ["what", *(word for r in reversed(relations) for word in (f"ask{r}", "of")), *self.names[path[0]], "?"]
        wanted = [self._passage_of.get((e, r)) for e, r in zip(path, relations, strict=False)]
        gold = [self.documents[index] for index in wanted if index is not None]
        question = Question(
            id,
            " ".join(words),
            (" ".join(self.names[path[-1]]),),
            sub_queries=tuple(
                " ".join((query_word(r, best_form(r)), *self.names[e])) for e, r in zip(path, relations, strict=False)
            ),
            gold_doc_ids=tuple(document.id for document in gold),
            gold_passages=tuple(document.text for document in gold),
            metadata={"hops": str(hops)},
        )
        return Chain(question, tuple(relations), tuple(path))

    @cached_property
    def _passage_of(self) -> dict[tuple[int, int], int]:
        return {(e, r): index for index, (e, r, _) in enumerate(self.passages)}

    def questions(self, count: int, stream: str, without: frozenset[str] = frozenset()) -> list[Question]:
        """`count` questions of a named stream, whose texts are not among `without`. The same for the same world."""
        rng, made = random.Random(f"questions {self.seed} {stream}"), list[Question]()
        while len(made) < count:
            question = self.chain(rng, f"lab/{stream}/{len(made)}").question
            if question.text not in without:
                made.append(question)
        return made


def worth(relation: int, form: int) -> float:
    """What the search engine makes of a relation's query word; the forms' ranks differ from relation to relation."""
    return WORTH[(form + relation) % QUERY_WORDS]


def best_form(relation: int) -> int:
    """The form of the relation's best query word."""
    return -relation % QUERY_WORDS
