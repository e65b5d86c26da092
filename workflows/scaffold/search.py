"""The search tool: a query in, documents out, best first. Put your own engine's call here."""

import json
import re
from collections import Counter
from functools import cache
from math import log
from pathlib import Path

# Where this file lies: engines have a copy of the function and another working folder.
CORPUS = Path(__file__).resolve().with_name("corpus.jsonl")


async def search(query: str, k: int) -> list[dict[str, str]]:
    """The documents that share the rarest words with the query."""
    documents, rarity = corpus()
    wanted = words(query)

    def shared(item: tuple[dict[str, str], frozenset[str]]) -> float:
        return sum(rarity[word] for word in wanted & item[1])

    best = sorted(documents, key=shared, reverse=True)[:k]
    return [document for document, _ in best]


@cache
def corpus() -> tuple[list[tuple[dict[str, str], frozenset[str]]], dict[str, float]]:
    """Each document with its words, and how rare each word is."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    documents = [(row, words(f"{row['title']} {row['text']}")) for row in rows]
    counts = Counter(word for _, known in documents for word in known)
    return documents, {word: log(len(documents) / count) for word, count in counts.items()}


def words(text: str) -> frozenset[str]:
    """The words of a text, in lower case."""
    return frozenset(re.findall(r"\w+", text.lower()))
