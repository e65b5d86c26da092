"""A model that writes and answers questions of facts such as "mayor of Redford is Hugo Lane", as the prompts ask it to.

It stands for the model behind the API in tests: honest, exact and without any knowledge of its own.
"""

from __future__ import annotations

import json
import re

from tests.rewards.judge_server import reply

_PASSAGE = re.compile(r"^Doc (\d+)\(Title: (.*?)\) (.*)$", re.MULTILINE)
_FACT = re.compile(r"([a-z]+) of ([^,.:]+?) is ([^,.]+)")
_NEEDS = {"one": 1, "two": 2, "three": 3}
Facts = dict[str, tuple[int, dict[str, str]]]
"""title -> (number of the passage, relation -> name)"""


def author(prompt: str, _: int = 0) -> tuple[int, str]:
    """What the model answers to a prompt, with 100 tokens in and 10 out."""
    facts: Facts = {
        title: (int(number), {relation: name for relation, of, name in _FACT.findall(text) if of == title})
        for number, title, text in _PASSAGE.findall(prompt)
    }
    if needs := re.search(r"needs exactly (\w+) of", prompt):
        return 200, reply(_written(facts, _NEEDS[needs[1]]), (100, 10))
    question = re.search(r"^Question: (.*)$", prompt, re.MULTILINE)
    assert question is not None
    if "VERDICT" in prompt:
        return 200, reply("VERDICT: 0", (100, 10))
    return 200, reply(f"ANSWER: {_found(question[1], facts) or 'NONE'}", (100, 10))


def _written(facts: Facts, hops: int) -> str:
    title = next(iter(facts))
    for chain in _chains(facts, title, hops):
        named = title
        for relation, _, _ in chain:
            named = f"the {relation} of {named}"
        question = f"What is {named}?"
        if chain[-1][2] not in question:
            steps, of = [], title
            for relation, passage, name in chain:
                steps.append({"passage": passage, "question": f"{relation} of {of}", "answer": name})
                of = name
            return json.dumps({"question": question, "steps": steps})
    return json.dumps({"question": None})


def _chains(facts: Facts, title: str, hops: int, used: tuple[str, ...] = ()) -> list[list[tuple[str, int, str]]]:
    """Ways of so many hops from a passage to a name, each (relation, passage, name)."""
    if title not in facts or title in used:
        return []
    passage, relations = facts[title]
    if hops == 1:
        return [[(relation, passage, name)] for relation, name in relations.items()]
    return [
        [(relation, passage, name), *rest]
        for relation, name in relations.items()
        for rest in _chains(facts, name, hops - 1, (*used, title))
    ]


def _found(question: str, facts: Facts) -> str | None:
    *relations, name = question.removeprefix("What is the ").removesuffix("?").replace(" the ", " ").split(" of ")
    known: str | None = name
    for relation in reversed(relations):
        known = facts[known][1].get(relation) if known in facts else None
    return known
