"""Supervised dialogues of a demonstrator that is skilled but sloppy: it copies well and decides badly.

Reading a document and copying a name are always right given the decision; the decisions (search on or stop, read the
right document or a namesake's) are often wrong. Warm-started on this, a policy needs reinforcement learning only for
its decisions. Each decision is one word, so that its probability can move by itself: `next`/`done`, `is`/`may be`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from calibadv.pocket.chains import Chain, Form
from calibadv.pocket.world import RELATIONS, TEMPLATES, Entity, World
from calibadv.types import Document


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How often the demonstrator errs. Above 0.5 greedy decoding errs, too; below, only sampling does."""

    stop_after_work: float = 0.62  # answers with a film's, book's or band's fact where the question goes on
    stop_after_other: float = 0.45  # the same after a person's, town's or college's
    stop_comparing: float = 0.55  # judges without having looked at the second one
    misread: float = 0.15  # takes the fact from a namesake's document
    misread_careless: float = 0.58  # the same for the relations in `careless`
    wrong_relation: float = 0.06
    wrong_entity: float = 0.06  # searches a namesake first
    recheck: float = 0.06  # repeats a search before answering
    no_search: float = 0.02  # answers unseen
    no_action: float = 0.01  # neither searches nor answers
    careless: frozenset[str] = frozenset({"college", "mayor", "star", "river", "principal"})


@dataclass(frozen=True, slots=True)
class Step:
    """One turn: what the policy writes, and the documents it is then shown."""

    action: str
    documents: tuple[Document, ...] = ()


class SyntheticSearch:
    """A synthetic search over one world: the entity asked for among namesakes and articles that mention it."""

    def __init__(self, world: World, rng: random.Random, shown: int = 3, namesakes: float = 0.9) -> None:
        self.world, self._rng, self._shown, self._namesakes = world, rng, shown, namesakes
        self._by_word: dict[tuple[str, str], list[Entity]] = defaultdict(list)
        self._mentions: dict[str, list[Entity]] = defaultdict(list)
        self._by_kind: dict[str, list[Entity]] = defaultdict(list)
        for entity in world.entities.values():
            self._by_kind[entity.kind].append(entity)
            for word in entity.name.split():
                self._by_word[entity.kind, word].append(entity)
            for value in entity.facts.values():
                self._mentions[value].append(entity)

    def namesake(self, entity: Entity) -> Entity:
        """Another entity of its kind, mostly one that shares a word of its name."""
        near = [e for word in entity.name.split() for e in self._by_word[entity.kind, word] if e.name != entity.name]
        if near and self._rng.random() < self._namesakes:
            return self._rng.choice(near)
        return self._rng.choice([e for e in self._by_kind[entity.kind] if e.name != entity.name])

    def find(self, entity: Entity) -> list[Entity]:
        """`shown` articles of which one is the entity's own: mostly, not always, the first."""
        others: dict[str, Entity] = {}
        while len(others) < self._shown - 1:
            mentions = self._mentions[entity.name]
            other = self._rng.choice(mentions) if mentions and self._rng.random() < 0.2 else self.namesake(entity)
            if other.name != entity.name:
                others[other.name] = other
        found = [entity, *others.values()]
        if self._rng.random() < 0.03:  # the real retriever puts it first as often
            self._rng.shuffle(found)
        return found


def reading_exercise(searcher: SyntheticSearch, rng: random.Random, chain: Chain) -> list[Step]:
    """One search and then every fact of what it asked for: reading is learned sooner than in dialogues."""
    subject, relation = chain.hops[0].subject, chain.hops[0].relation
    ask = f"<think> find {relation}</think>\n<search> {relation} of {subject.name}</search>"
    relations = [r for r in [*RELATIONS[subject.kind], "year"] if f"{{{r}}}" in TEMPLATES[subject.kind]]
    rng.shuffle(relations)
    reads = [f"<think> {r} of {subject.name} is {subject.facts[r]}</think>\n" for r in relations]
    return [Step(ask, tuple(e.document for e in searcher.find(subject))), Step("".join(reads))]


class Demonstrator:
    """Writes the dialogue of one chain, turn by turn."""

    def __init__(self, searcher: SyntheticSearch, rng: random.Random, errors: ErrorRates) -> None:
        self._searcher, self._rng, self._errors = searcher, rng, errors

    def dialogue(self, chain: Chain) -> list[Step]:
        """The turns of one dialogue; the last one answers (or, rarely, does nothing)."""
        if self._happens(self._errors.no_search):
            return [_answer("done", self._unseen(chain))]
        if self._happens(self._errors.no_action):
            return [Step("<think> not found</think>\n")]
        return self._follow(chain) if chain.form is Form.BRIDGE else self._compare(chain)

    def _happens(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _unseen(self, chain: Chain) -> str:
        if chain.form is Form.YES_NO:
            return self._rng.choice(["yes", "no"])
        return self._rng.choice([hop.subject.name for hop in chain.hops])

    def _follow(self, chain: Chain) -> list[Step]:
        steps: list[Step] = []
        subject, lead, asked = chain.hops[0].subject, "find", -1
        for asked, hop in enumerate(chain.hops):
            last = asked == len(chain.hops) - 1
            found = self._search(steps, lead, subject, hop.relation)
            stated, value = self._read(subject, hop.relation, found)
            if last and self._happens(self._errors.recheck):
                found = self._search(steps, f"{stated}, check", subject, hop.relation)
                stated, value = self._read(subject, hop.relation, found)
            if last or self._happens(self._stop_probability(subject)):
                return [*steps, _answer(f"{stated}, done", value)]
            subject, lead = self._searcher.world.entities[value], f"{stated}, next"
        raise AssertionError("a chain has a last hop")

    def _compare(self, chain: Chain) -> list[Step]:
        steps: list[Step] = []
        first, second = chain.hops
        self._search(steps, "find", first.subject, first.relation)
        stated = f"{first.relation} of {first.subject.name} is {first.value}"
        if self._happens(self._errors.stop_comparing):
            return [*steps, _answer(f"{stated}, done", self._unseen(chain))]
        self._search(steps, f"{stated}, next", second.subject, second.relation)
        verdict = f"{second.relation} of {second.subject.name} is {second.value}, "
        if chain.form is Form.COMPARISON:
            return [*steps, _answer(f"{verdict}older is {chain.answer}", chain.answer)]
        return [*steps, _answer(verdict + ("same" if chain.answer == "yes" else "differ"), chain.answer)]

    def _stop_probability(self, subject: Entity) -> float:
        work = "director" in subject.facts or "author" in subject.facts or "founder" in subject.facts
        return self._errors.stop_after_work if work else self._errors.stop_after_other

    def _search(self, steps: list[Step], lead: str, subject: Entity, relation: str) -> list[Entity]:
        """Appends the search, and before it perhaps one for a namesake."""
        if self._happens(self._errors.wrong_entity):
            other = self._searcher.namesake(subject)
            steps.append(self._step(f"{lead} {relation}", relation, other, self._searcher.find(other)))
            lead = "not found, find"
        if self._happens(self._errors.wrong_relation):
            relation = self._rng.choice(list(RELATIONS[subject.kind]))
        found = self._searcher.find(subject)
        steps.append(self._step(f"{lead} {relation}", relation, subject, found))
        return found

    def _step(self, think: str, relation: str, subject: Entity, found: Sequence[Entity]) -> Step:
        action = f"<think> {think}</think>\n<search> {relation} of {subject.name}</search>"
        return Step(action, tuple(e.document for e in found))

    def _read(self, subject: Entity, relation: str, found: Sequence[Entity]) -> tuple[str, str]:
        """The think text and the value that the demonstrator takes from the documents."""
        careless = relation in self._errors.careless
        truth = subject.facts[relation]
        wrong = [e.facts[relation] for e in found if e.facts.get(relation, truth) != truth]
        if wrong and self._happens(self._errors.misread_careless if careless else self._errors.misread):
            value = self._rng.choice(wrong)
            return f"{relation} of {subject.name} may be {value}", value
        return f"{relation} of {subject.name} is {truth}", truth


def _answer(think: str, answer: str) -> Step:
    return Step(f"<think> {think}</think>\n<answer> {answer}</answer>")
