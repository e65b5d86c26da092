"""When a passage of a corpus is a gold passage."""

from __future__ import annotations

import pytest

from calibadv.rewards.gold_match import GoldNeed, overlap, same_passage, title_key
from calibadv.types import Document


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("red fox", "the red fox runs", 1.0),  # articles are no words
        ("red fox runs", "red hen", 0.5),
        ("Red, red fox!", "red", 1.0),
        ("", "red", 0.0),
        ("the", "the", 0.0),
        ("东京是首都", "东京是日本的", 3 / 5),
    ],
)
def test_overlap_is_of_the_shorter_texts_distinct_words(one: str, other: str, share: float) -> None:
    assert overlap(one, other) == overlap(other, one) == pytest.approx(share)


def test_titles_are_compared_without_case_and_quotes() -> None:
    assert title_key('"The  Who"') == title_key("the who")
    assert title_key("The Who") != title_key("Who")


def test_title_and_half_of_the_words_make_a_passage_the_same() -> None:
    document = Document("1", "Oslo", "Oslo is big city")
    assert same_passage(document, "Oslo", "Oslo is small town")
    assert not same_passage(document, "Oslo", "Norway has small towns")
    assert not same_passage(document, "Bergen", "Oslo is big city")
    assert not same_passage(
        Document("1", "", "Oslo is big city"), "", "Oslo is big city"
    )  # without titles nothing is known


def test_a_share_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="min_gold is 2"):
        GoldNeed("texts", 2)
