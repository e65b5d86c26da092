"""Which passages the model is shown for a question: one that is drawn, and for several hops those that are near it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from calibadv.rollout.protocols import SearchFn
from calibadv.types import Document

MOST_PASSAGES = 6  # shown at a time, from which the model chooses those that make a chain
_NEAR = 2  # of one passage
_FEW_WORDS = 6  # a passage of fewer says too little to ask about


def drawn(documents: Sequence[Document], hops: Sequence[int], seed: int) -> Iterator[tuple[Document, int]]:
    """(a passage, how many hops to ask for), each passage with each of `hops` once, in an order drawn from the seed.

    More of them are a longer beginning of the same order, so that a larger number of questions goes on where a smaller
    one ended.
    """
    for turn in range(len(hops)):
        rng, seen = random.Random(f"{seed} {turn}"), set[int]()
        while len(seen) < len(documents):
            row = rng.randrange(len(documents))
            if row in seen:
                continue
            seen.add(row)
            document = documents[row]
            if len(f"{document.title} {document.text}".split()) >= _FEW_WORDS:
                yield document, hops[(row + turn) % len(hops)]


async def shown(document: Document, hops: int, search: SearchFn) -> list[Document]:
    """The passage alone for one hop; else with two that a search for its text finds, two that one for theirs does, ….

    So the last ones are some steps away from the first. Of one title only one is shown: what overlaps says the same.
    Raises what `search` raises.
    """
    near = {document.title: document}
    waiting = [] if hops == 1 else [document]
    while waiting and len(near) < MOST_PASSAGES:
        found = await search(waiting.pop(0).text)
        new = [one for one in {one.title: one for one in found}.values() if one.title not in near]
        new = new[: min(_NEAR, MOST_PASSAGES - len(near))]
        near |= {one.title: one for one in new}
        waiting += new
    return list(near.values())
