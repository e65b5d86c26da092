"""Questions over a world: chains of one to three facts, comparisons of years, and yes/no questions of equal facts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from calibadv.pocket.world import RELATIONS, Entity, Half, Kind, World


class Form(StrEnum):
    """How a question hangs together; its value is FlashRAG's `metadata.type`."""

    BRIDGE = "bridge"
    COMPARISON = "comparison"
    YES_NO = "yes_no"


@dataclass(frozen=True, slots=True)
class Hop:
    """One search of the gold path: `relation` of `subject` is `value`."""

    subject: Entity
    relation: str
    value: str

    @property
    def query(self) -> str:
        """The gold sub-query."""
        return f"{self.relation} of {self.subject.name}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A question with its gold path."""

    form: Form
    text: str
    hops: tuple[Hop, ...]
    answer: str
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two questions the same one: the searches of its gold path."""
        return tuple(hop.query for hop in self.hops)


MIX: Mapping[tuple[Form, int], float] = {
    (Form.BRIDGE, 1): 0.27,
    (Form.BRIDGE, 2): 0.43,
    (Form.BRIDGE, 3): 0.14,
    (Form.COMPARISON, 2): 0.08,
    (Form.YES_NO, 2): 0.08,
}
"""Share of each (form, hops). Questions with two possible answers stay few: they can be guessed."""

_DATED = (Kind.PERSON, Kind.FILM, Kind.BOOK, Kind.BAND, Kind.COLLEGE)
_SHARED = ((Kind.PERSON, "birthplace"), (Kind.PERSON, "college"), (Kind.BOOK, "setting"), (Kind.BAND, "base"))
_START_WEIGHTS = {Kind.PERSON: 5, Kind.FILM: 4, Kind.BOOK: 3, Kind.BAND: 3, Kind.TOWN: 1, Kind.COLLEGE: 1}


class ChainSampler:
    """Draws chains from one half of a world."""

    def __init__(self, world: World, half: Half, rng: random.Random) -> None:
        self._world, self._rng = world, rng
        self._by_kind = {kind: world.of(half, kind) for kind in Kind}

    def draw(self) -> Chain:
        """One chain of the mix."""
        (form, hops) = self._rng.choices(list(MIX), weights=list(MIX.values()))[0]
        if form is Form.COMPARISON:
            return self._comparison()
        if form is Form.YES_NO:
            return self._yes_no()
        return self._bridge(hops)

    def distinct(self, count: int) -> list[Chain]:
        """`count` chains of which no two have the same gold path."""
        found: dict[tuple[str, ...], Chain] = {}
        for _ in range(100 * count):
            chain = self.draw()
            found.setdefault(chain.key, chain)
            if len(found) == count:
                return list(found.values())
        raise ValueError(f"the world holds fewer than {count} distinct questions: found {len(found)}")

    def _bridge(self, num_hops: int) -> Chain:
        while True:
            kind = self._rng.choices(list(_START_WEIGHTS), weights=list(_START_WEIGHTS.values()))[0]
            subject = self._rng.choice(self._by_kind[kind])
            hops: list[Hop] = []
            while len(hops) < num_hops:
                relation = self._rng.choice(list(RELATIONS[subject.kind]))
                hops.append(Hop(subject, relation, subject.facts[relation]))
                if hops[-1].value not in self._world.entities:
                    break
                subject = self._world.entities[hops[-1].value]
            met = [hop.subject.name for hop in hops] + [hops[-1].value]
            if len(hops) == num_hops and len(set(met)) == len(met):
                break
        phrase = " of the ".join(hop.relation for hop in reversed(hops)) + f" of {hops[0].subject.name}"
        target = RELATIONS[hops[-1].subject.kind][hops[-1].relation]
        frame = "Who is the {}?" if target is Kind.PERSON else "What is the {}?"
        return Chain(Form.BRIDGE, frame.format(phrase), tuple(hops), hops[-1].value, _aliases(hops[-1], target))

    def _comparison(self) -> Chain:
        while True:
            a, b = self._rng.sample(self._by_kind[self._rng.choice(_DATED)], 2)
            if a.facts["year"] != b.facts["year"]:
                break
        older = min(a, b, key=lambda e: e.facts["year"])
        hops = tuple(Hop(e, "year", e.facts["year"]) for e in (a, b))
        word = "Who" if a.kind is Kind.PERSON else "Which"
        return Chain(Form.COMPARISON, f"{word} is older, {a.name} or {b.name}?", hops, older.name)

    def _yes_no(self) -> Chain:
        kind, relation = self._rng.choice(_SHARED)
        a = self._rng.choice(self._by_kind[kind])
        same = [e for e in self._by_kind[kind] if e.facts[relation] == a.facts[relation] and e.name != a.name]
        if self._rng.random() < 0.5 and same:
            b = self._rng.choice(same)
        else:
            b = self._rng.choice([e for e in self._by_kind[kind] if e.name != a.name])
        hops = tuple(Hop(e, relation, e.facts[relation]) for e in (a, b))
        answer = "yes" if hops[0].value == hops[1].value else "no"
        return Chain(Form.YES_NO, f"Do {a.name} and {b.name} have the same {relation}?", hops, answer)


def _aliases(hop: Hop, target: Kind | None) -> tuple[str, ...]:
    if target is Kind.COLLEGE:
        return (f"{hop.value} College",)
    if hop.relation == "county":
        return (f"County of {hop.value}",)
    if hop.relation == "river":
        return (f"River {hop.value}",)
    return ()
