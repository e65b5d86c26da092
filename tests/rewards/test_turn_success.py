"""MT-GRPO's turn rewards, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibadv.rewards.turn_success import contains_answer, each_search_rewards, first_search, first_search_rewards
from calibadv.types import Document, Turn, TurnKind
from tests.build import group, turn
from tests.rewards.test_gold_labels import rollout

FOUND = Document("found", "A poet's daughter", "Her name was ADA, says the chronicle.")
TITLED = Document("titled", "Ada", "She was an engineer.")
OTHER = Document("other", "Adana", "A city with a canada goose.")
DOCUMENTS = {document.id: document for document in (FOUND, TITLED, OTHER)}
ANSWER = turn(kind=TurnKind.ANSWER)
VOID = turn(kind=TurnKind.VOID)


def search(*docs: str) -> Turn:
    return turn(docs=docs)


@pytest.mark.parametrize(
    ("text", "answers", "stands"),
    [
        ("born in Oslo, Norway", ("oslo",), True),
        ("the U.S.A. won", ("USA",), True),
        ("the Beatles' last album", ("The Beatles",), True),
        ("a canada goose", ("Ada",), False),
        ("the year 19845", ("1984",), False),
        ("Paris–Dakar", ("Paris",), True),
        ("New   York\nCity", ("new york",), True),
        ("yes, no", ("yes", "No."), False),
        ("the end", ("The",), False),
        ("", ("Ada",), False),
        ("C++ (a language)", ("C++",), True),
        ("nothing", ("x", "nothing"), True),
        ("हिन्दी", ("हिन्द",), False),
        ("हिन्दी भाषा", ("हिन्दी",), True),
        ("in the cafe\u0301", ("Café",), True),
        ("canada and Ada", ("Ada",), True),
    ],
)
def test_a_golden_answer_stands_as_whole_normalised_words(text: str, answers: tuple[str, ...], stands: bool) -> None:
    assert contains_answer(text, answers) is stands


def test_the_first_search_carries_the_share_of_calls_and_what_it_found() -> None:
    # Three calls, of which the last found nothing: 0.2 * 2/3 + 0.5.
    (row,) = first_search_rewards(group(rollout(search("found"), search("other"), search(), ANSWER)), DOCUMENTS)
    assert row == pytest.approx([0.2 * 2 / 3 + 0.5, 0, 0, 0])


def test_an_answer_in_a_later_search_does_not_count_for_the_first() -> None:
    (row,) = first_search_rewards(group(rollout(search("other"), search("found"), ANSWER)), DOCUMENTS)
    assert row == pytest.approx([0.2, 0, 0])


def test_void_turns_are_no_calls() -> None:
    # Official rule: the share is of the calls that were made, of which there is one.
    rows = first_search_rewards(
        group(rollout(VOID, search("titled"), ANSWER), rollout(search("other"), VOID)), DOCUMENTS
    )
    assert rows[0] == pytest.approx([0, 0.2 + 0.5, 0])
    assert rows[1] == pytest.approx([0.2, 0])


def test_a_search_that_was_not_carried_out_is_no_call() -> None:
    left_over = replace(turn(), observation_ids=np.zeros(0, np.int64))  # where only an answer was left
    forced = replace(rollout(search("other"), search()), forced_final=True)
    rows = first_search_rewards(group(rollout(search("other"), left_over), forced, rollout(left_over)), DOCUMENTS)
    assert rows == [pytest.approx([0.2, 0]), pytest.approx([0.2, 0]), [0]]
    assert first_search(rollout(left_over)) is None


def test_a_call_that_found_nothing_failed() -> None:
    (row,) = first_search_rewards(group(rollout(search("other"), search(), ANSWER)), DOCUMENTS)
    assert row == pytest.approx([0.2 / 2, 0, 0])


def test_no_search_has_no_turn_reward() -> None:
    assert first_search_rewards(group(rollout(ANSWER), rollout(VOID)), DOCUMENTS) == [[0], [0]]


def test_each_search_is_scored_by_itself_in_the_tree() -> None:
    rows = each_search_rewards(
        group(rollout(search("found", "other"), search("other"), search(), VOID, ANSWER)), DOCUMENTS
    )
    assert rows[0] == pytest.approx([0.7, 0.2, 0, 0, 0])
