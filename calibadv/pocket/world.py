"""A small encyclopaedia drawn from a seed: entities of six kinds, the facts between them, one document for each.

The world is two closed halves: no entity of the training half is linked to one of the test half. Names share their
words over both, so that a search for one entity also meets its namesakes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from calibadv.pocket import lexicon
from calibadv.types import Document


class Kind(StrEnum):
    """What an entity is. Places without a document of their own (counties, rivers) are plain names."""

    PERSON = "person"
    FILM = "film"
    BOOK = "book"
    BAND = "band"
    TOWN = "town"
    COLLEGE = "college"


class Half(StrEnum):
    """Which closed half of the world an entity belongs to."""

    TRAIN = "train"
    TEST = "test"


SIZES: Mapping[Half, Mapping[Kind, int]] = {
    Half.TRAIN: {
        Kind.PERSON: 1000, Kind.FILM: 320, Kind.BOOK: 240, Kind.BAND: 200, Kind.TOWN: 84, Kind.COLLEGE: 34,
    },
    Half.TEST: {
        Kind.PERSON: 260, Kind.FILM: 90, Kind.BOOK: 70, Kind.BAND: 60, Kind.TOWN: 36, Kind.COLLEGE: 14,
    },
}  # fmt: skip

RELATIONS: Mapping[Kind, Mapping[str, Kind | None]] = {
    Kind.PERSON: {"birthplace": Kind.TOWN, "college": Kind.COLLEGE, "spouse": Kind.PERSON},
    Kind.FILM: {"director": Kind.PERSON, "star": Kind.PERSON},
    Kind.BOOK: {"author": Kind.PERSON, "setting": Kind.TOWN},
    Kind.BAND: {"founder": Kind.PERSON, "base": Kind.TOWN},
    Kind.TOWN: {"county": None, "river": None, "mayor": Kind.PERSON},
    Kind.COLLEGE: {"location": Kind.TOWN, "principal": Kind.PERSON},
}
"""What one can ask about an entity of each kind, and the kind of the answer (None: a name without a document)."""

_FACTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.PERSON: ("birthplace", "college", "spouse", "year"),
    Kind.FILM: ("director", "star", "year"),
    Kind.BOOK: ("author", "setting", "year"),
    Kind.BAND: ("founder", "base", "year"),
    Kind.TOWN: ("county", "river", "mayor"),
    Kind.COLLEGE: ("location", "principal", "year"),
}

# A fact stands in the document as the policy will say it, "director of Lost Valley is …": reading is then copying,
# which a policy of two million parameters learns within minutes.
TEMPLATES: Mapping[Kind, str] = {
    kind: f"A {kind}: " + ", ".join(f"{fact} of {{name}} is {{{fact}}}" for fact in facts) + "."
    for kind, facts in _FACTS.items()
}


@dataclass(frozen=True, slots=True)
class Entity:
    """One article: its name, and its facts as relation -> name."""

    id: str
    kind: Kind
    half: Half
    name: str
    facts: Mapping[str, str]

    @property
    def document(self) -> Document:
        """The article as the corpus holds it."""
        return Document(id=self.id, title=self.name, text=TEMPLATES[self.kind].format(name=self.name, **self.facts))


@dataclass(frozen=True, slots=True)
class World:
    """All entities of a seed, by name (names are unique over all kinds)."""

    entities: Mapping[str, Entity]

    def of(self, half: Half, kind: Kind) -> list[Entity]:
        """The entities of one kind in one half, in their order of creation."""
        return [e for e in self.entities.values() if e.half is half and e.kind is kind]


def build_world(seed: int) -> World:
    """The world of a seed. Equal seeds give equal worlds."""
    rng = random.Random(f"pocket world {seed}")
    names = _draw_names(rng, {kind: sum(SIZES[half][kind] for half in Half) for kind in Kind})
    entities: list[Entity] = []
    for half in Half:
        own = {kind: [names[kind].pop() for _ in range(SIZES[half][kind])] for kind in Kind}
        spouse_of = _couples(own[Kind.PERSON])
        for kind in Kind:
            for name in own[kind]:
                facts = _draw_facts(rng, kind, own)
                if kind is Kind.PERSON:
                    facts["spouse"] = spouse_of[name]
                entities.append(Entity("", kind, half, name, facts))
    # Ids follow a shuffled order, so that an id tells neither the kind nor the half.
    ids = [f"pocket-{i:04d}" for i in range(len(entities))]
    rng.shuffle(ids)
    return World({e.name: Entity(i, e.kind, e.half, e.name, e.facts) for i, e in zip(ids, entities, strict=True)})


def _draw_names(rng: random.Random, counts: Mapping[Kind, int]) -> dict[Kind, list[str]]:
    people = _pairs(rng, lexicon.FIRST_NAMES, lexicon.SURNAMES, counts[Kind.PERSON])
    works = _pairs(rng, lexicon.ADJECTIVES, lexicon.NOUNS, counts[Kind.FILM] + counts[Kind.BOOK] + counts[Kind.BAND])
    films, books = counts[Kind.FILM], counts[Kind.BOOK]
    return {
        Kind.PERSON: people,
        Kind.FILM: works[:films],
        Kind.BOOK: works[films : films + books],
        Kind.BAND: works[films + books :],
        Kind.TOWN: rng.sample(lexicon.TOWNS, counts[Kind.TOWN]),
        Kind.COLLEGE: rng.sample(lexicon.COLLEGES, counts[Kind.COLLEGE]),
    }


def _pairs(rng: random.Random, first: Sequence[str], second: Sequence[str], count: int) -> list[str]:
    picked = rng.sample(range(len(first) * len(second)), count)
    return [f"{first[i // len(second)]} {second[i % len(second)]}" for i in picked]


def _couples(people: Sequence[str]) -> dict[str, str]:
    assert len(people) % 2 == 0, "everybody is married"
    pairs = list(zip(people[::2], people[1::2], strict=True))
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def _draw_facts(rng: random.Random, kind: Kind, own: Mapping[Kind, Sequence[str]]) -> dict[str, str]:
    plain = {"county": lexicon.COUNTIES, "river": lexicon.RIVERS}
    facts = {
        relation: rng.choice(own[target] if target is not None else plain[relation])
        for relation, target in RELATIONS[kind].items()
    }
    if "star" in facts and facts["star"] == facts["director"]:
        others = [p for p in own[Kind.PERSON] if p != facts["director"]]
        facts["star"] = rng.choice(others)
    return facts | {"year": rng.choice(lexicon.YEARS)}
