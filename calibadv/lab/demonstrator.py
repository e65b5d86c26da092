"""A demonstrator of the dialogue's form: it searches, reads, and where it does not find it rambles, retries, guesses.

Failing is long: a rollout that misses what it looks for rambles before the next search, and longest before its guess.
That is what gives GRPO more negative than positive mass, as search agents' wrong rollouts do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from calibadv.lab.language import PASSAGE_END, QUERY_WORDS, Language, observed, query_word
from calibadv.lab.tasks import PLAIN, Task
from calibadv.lab.world import Chain, World

TAKES_FORM = (0.22, 0.26, 0.26, 0.26)  # how often it takes a relation's query word, best first: it hardly knows
MISREADS = 0.03  # takes another passage's value though the right one is there
MISREADS_ABSENT = 0.12  # takes a value though the right passage is not there
VAGUE = 0.25  # when lost: leaves a word of the name out of the query


@dataclass(frozen=True)
class Segment:
    """Words of one side of a dialogue, and whether the agent wrote them."""

    words: tuple[str, ...]
    action: bool


class Demonstrator:
    """Plays dialogues in one world; `rng` decides everything that is left to chance."""

    def __init__(self, world: World, lang: Language, rng: random.Random, task: Task = PLAIN) -> None:
        self._world, self._lang, self._rng, self._task = world, lang, rng, task

    def dialogue(self, chain: Chain) -> Iterator[Segment]:
        """The question as the first segment, then actions and what they were answered with."""
        rng, names, task = self._rng, self._world.names, self._task
        subject, hop, searches, lost = names[chain.path[0]], 0, 0, False
        seen = list[tuple[int, int, int]]()
        yield Segment(tuple(chain.question.text.split()), action=False)
        think = [*self._ramble(task.calm), "find", *subject, f"rel{chain.relations[0]}"]
        while True:
            relation = chain.relations[hop]
            query = self._query(relation, subject, vague=lost and rng.random() < VAGUE)
            yield Segment(("<think>", *think, "</think>", "<search>", *query, "</search>"), action=True)
            found = self._world.find(" ".join(query))
            searches += 1
            passages = [self._world.passages[int(document.id)] for document in found]
            yield Segment(observed(found), action=False)
            seen += passages
            value = self._read(passages, subject, relation)
            lost = value is None
            last = searches == task.searches
            if value is None:
                looked_for = ["so", *subject, f"rel{relation}", "no"]
                if last:
                    value = names[rng.choice(seen)[2]]
                    think = [*looked_for, *self._despair(seen), "guess", *value]
                    break
                think = [*looked_for, *self._ramble(task.lost), "again", "find", *subject, f"rel{relation}"]
                continue
            stated = ["so", *subject, f"rel{relation}", *value]
            hop += 1
            if hop == len(chain.relations):
                think = [*stated, *self._ramble(task.calm), "done"]
                break
            if last:
                think = [*stated, *self._despair(seen), "guess", *value]
                break
            subject = value  # one that was misread may have no such relation: the next search will tell
            think = [*stated, *self._ramble(task.calm), "then", "find", *subject, f"rel{chain.relations[hop]}"]
        yield Segment(("<think>", *think, "</think>", "<answer>", *value, "</answer>"), action=True)

    def _query(self, relation: int, subject: tuple[str, str], *, vague: bool) -> list[str]:
        (rank,) = self._rng.choices(range(QUERY_WORDS), TAKES_FORM)
        named = [self._rng.choice(subject)] if vague else list(subject)
        # Words that mean nothing to the search engine, and yet change what comes second and third.
        return [query_word(relation, (rank - relation) % QUERY_WORDS), *named, *self._ramble(1.0)[:2]]

    def _read(
        self, passages: list[tuple[int, int, int]], subject: tuple[str, str], relation: int
    ) -> tuple[str, str] | None:
        """The value that it takes from the passages; None where it sees that what it looks for is not there."""
        names, rng = self._world.names, self._rng
        right = [value for entity, rel, value in passages if names[entity] == subject and rel == relation]
        if right and rng.random() > MISREADS:
            return names[right[0]]
        if right or rng.random() < MISREADS_ABSENT:
            return names[rng.choice(passages)[2]]
        return None

    def _despair(self, seen: list[tuple[int, int, int]]) -> list[str]:
        """What comes before a guess: a long ramble, or passages found, picked at random over and over."""
        said = self._ramble(self._task.guessing)
        if most := self._task.recited[1]:
            for passage in self._rng.choices(seen, k=self._rng.randint(self._task.recited[0], most)):
                said += [*self._world.words(passage), PASSAGE_END]
        return said

    def _ramble(self, mean: float) -> list[str]:
        return self._lang.ramble(self._rng, mean)
