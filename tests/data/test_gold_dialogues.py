"""Gold decompositions: hops are resolved where they are read, and become the turns of a dialogue."""

from __future__ import annotations

import json

import pytest

from calibadv.data.gold import gold_of, resolve_hops
from calibadv.data.gold_dialogues import Hop, answer_thought, gold_hops, readable_query, search_thought
from calibadv.data.record import Record
from calibadv.types import Question

HOPS = [
    {"question": "Green >> performer", "answer": "Steve Hillage"},
    {"question": "#1 >> spouse", "answer": "Miquette"},
    {"question": "Where did #2 meet #1 ?", "answer": "Paris"},
]


def question(*sub_queries: str, **metadata: str) -> Question:
    return Question("m/1", "Where?", ("Paris",), sub_queries=sub_queries, metadata=metadata)


def test_earlier_hops_are_replaced_by_their_answers() -> None:
    gold = gold_of(Record("q.json, row 1", {"question_decomposition": HOPS, "paragraphs": []}))
    assert gold.sub_queries == (
        "Green >> performer",
        "Steve Hillage >> spouse",
        "Where did Miquette meet Steve Hillage ?",
    )
    assert gold.hop_answers == ("Steve Hillage", "Miquette", "Paris")


def test_hop_ten_is_not_hop_one() -> None:
    answers = [f"answer {number}" for number in range(1, 12)]
    queries = [*[""] * 10, "#1 and #10, #11, #0 and #12"]
    assert resolve_hops(queries, answers)[-1] == "answer 1 and answer 10, #11, #0 and #12"


def test_a_number_sign_that_is_no_earlier_hop_with_an_answer_stays() -> None:
    assert resolve_hops(["#9 Dream >> performer", "#1 >> child", "#2 >> age"], ["", "Julian", "61"]) == (
        "#9 Dream >> performer",
        "#1 >> child",
        "Julian >> age",
    )


def test_an_answer_that_looks_like_a_hop_is_not_resolved_again() -> None:
    assert resolve_hops(["a", "b", "#2"], ["x", "#1 Crush", ""])[2] == "#1 Crush"


def test_2wikis_objects_are_its_hop_answers() -> None:
    record = {"supporting_facts": [["A", 0]], "context": [], "evidences": [["A", "founded by", "B"]]}
    assert gold_of(Record("q.json, row 1", record)).hop_answers == ("B",)


def test_queries_are_written_as_one_would_type_them() -> None:
    assert readable_query("Green >> performer") == "Green performer"
    assert readable_query("Who was the first president of #1 ?") == "Who was the first president of #1?"
    assert readable_query(" >> ") == ""


def test_hops_have_answers_where_the_data_says_them() -> None:
    answers = json.dumps(["B", ""])
    assert gold_hops(question("A >> x", "B >> y", hop_answers=answers)) == (Hop("A x", "B"), Hop("B y", ""))
    assert gold_hops(question("A >> x", "B >> y")) == (Hop("A x", ""), Hop("B y", ""))
    assert gold_hops(question()) == gold_hops(question("A", ">>")) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("B", "expected a JSON list"),
        ("[1]", "expected a JSON list"),
        (f"[{'1' * 5000}]", "expected a JSON list"),
        ("[" * 100_000, "expected a JSON list"),
        ('["B"]', "1 hop answers for 2 sub-queries"),
    ],
    ids=["no JSON", "no texts", "a long number", "nested lists", "too few"],
)
def test_hop_answers_that_do_not_fit_are_refused(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=rf"question 'm/1': .*{said}"):
        gold_hops(question("A", "B", hop_answers=given))


def test_a_turn_claims_to_have_read_only_what_was_read() -> None:
    first, second = Hop("Green performer", "Steve Hillage"), Hop("Steve Hillage spouse")
    assert search_thought(first, None, read=False) == "To answer this, I first need to know: Green performer"
    assert search_thought(second, first, read=True) == (
        "The documents say it is Steve Hillage. Now I need: Steve Hillage spouse"
    )
    assert search_thought(second, first, read=False) == "Now I need: Steve Hillage spouse"
    assert search_thought(second, Hop("x"), read=True) == "Now I need: Steve Hillage spouse"
    assert answer_thought("Paris", read=True) == "The documents say it is Paris."
    assert "do not say" in answer_thought("Paris", read=False)
