"""EM, cover-EM and F1 agree with Search-R1's definitions, also where answers are odd.

The definitions are written out here a second time, from their words (normalise: lower case, ASCII punctuation away,
the articles a, an and the away, single spaces), in another way than `calibadv.rewards.answer` does it.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calibadv.rewards.answer import best_over_golden, cover_em, exact_match, f1, normalise

# Enough of what normalisation acts on that random answers meet it, and meet each other.
ANSWERS = st.one_of(
    st.lists(
        st.sampled_from(["the", "A", "an", "Théâtre", "art", "party", "1,000", "U.S.", "yes", "no", "-", "’s"])
    ).map(" ".join),
    st.text(alphabet="aAnthe .,’\u00a0\u0130é1", max_size=12),
    st.text(max_size=12),
)


def words(answer: str) -> list[str]:
    """The words that are left of an answer; a word character is a letter, a digit or an underscore, of any script."""
    kept = "".join(character for character in answer.lower() if character not in string.punctuation)
    runs, current = [], ""
    for character in kept:  # an article is a whole run of word characters
        if current and (current[-1].isalnum() != character.isalnum()):
            runs.append(current)
            current = ""
        current += character
    runs.append(current)
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def f1_by_hand(prediction: str, golden: str) -> float:
    left, hits = words(golden), 0
    for word in words(prediction):
        if word in left:
            left.remove(word)
            hits += 1
    return 2 * hits / (len(words(prediction)) + len(words(golden))) if hits else 0.0


@given(ANSWERS, ANSWERS)
@example("", "")
@example("the", "a")
@example("İstanbul", "istanbul")
def test_scores_are_those_of_the_definitions(prediction: str, golden: str) -> None:
    said, truth = " ".join(words(prediction)), " ".join(words(golden))
    assert exact_match(prediction, golden) == (said == truth)
    assert cover_em(prediction, golden) == (truth in said)
    assert f1(prediction, golden) == pytest.approx(f1_by_hand(prediction, golden))


@given(ANSWERS, ANSWERS)
def test_scores_are_ordered_and_symmetric_where_they_should_be(prediction: str, golden: str) -> None:
    assert cover_em(prediction, golden) >= exact_match(prediction, golden)
    assert f1(prediction, golden) == pytest.approx(f1(golden, prediction))
    if words(golden) and exact_match(prediction, golden):
        assert f1(prediction, golden) == 1


@pytest.mark.parametrize(
    ("prediction", "golden", "em", "cover", "overlap"),
    [
        ("Émile Zola", "émile zola", 1, 1, 1),
        ("Emile Zola", "Émile Zola", 0, 0, 0.5),  # accents count
        ("Jean‐Luc Godard", "Jean-Luc Godard", 0, 0, 0.5),  # U+2010 is no ASCII punctuation, "-" is and falls away
        ("東京", "東京都", 0, 0, 0),  # one word each
        ("東京都", "東京", 0, 1, 0),  # … of which one holds the other
        ("Ｙｅｓ", "yes", 0, 0, 0),  # full-width letters stay what they are
        ("New\u00a0York", "New York", 1, 1, 1),  # a no-break space is white space
        ("The", "A", 1, 1, 0),  # articles only: equal, without a word in common
        ("the", "Ada", 0, 0, 0),
        ("Ada", "the", 0, 1, 0),  # nothing is found everywhere
        ("", "Ada", 0, 0, 0),
        ("", "", 1, 1, 0),
        ("...", "", 1, 1, 0),
        ("1,000", "1000", 1, 1, 1),
        ("1.000", "1,000", 1, 1, 1),
        ("3.14", "314", 1, 1, 1),  # the price of dropping the point
        ("about 1,000 people", "1000", 0, 1, 0.5),
        ("21000", "1000", 0, 1, 0),  # letters are compared, not words
        ("yes", "no", 0, 0, 0),
        ("Yes.", "yes", 1, 1, 1),
        ("yes, it was", "yes", 0, 1, 0.5),  # no special case for yes and no (spec, section 2)
        ("no", "nobody", 0, 0, 0),
        ("nobody", "no", 0, 1, 0),
        ("The Beatles", "beatles", 1, 1, 1),
        ("theatre", "the atre", 0, 1, 0),  # an article is a whole word: "theatre" stays one, "the atre" does not
        ("o'clock", "oclock", 1, 1, 1),
        ("snake_case", "snakecase", 1, 1, 1),  # "_" is punctuation
    ],
)
def test_odd_answers(prediction: str, golden: str, em: float, cover: float, overlap: float) -> None:
    assert exact_match(prediction, golden) == em
    assert cover_em(prediction, golden) == cover
    assert f1(prediction, golden) == pytest.approx(overlap)


def test_the_best_of_several_golden_answers_counts_for_each_score_by_itself() -> None:
    golden = ("New York City", "NYC", "the city of New York")
    assert best_over_golden("nyc!", golden, exact_match) == 1
    assert best_over_golden("in New York City, NY", golden, cover_em) == 1
    assert best_over_golden("in New York City, NY", golden, exact_match) == 0
    assert best_over_golden("New York", golden) == pytest.approx(0.8)  # precision 1, recall 2/3
    assert best_over_golden("Boston", golden, cover_em) == 0


def test_no_answer_scores_nothing_whatever_the_golden_answer() -> None:
    assert [best_over_golden(None, ("the", ""), score) for score in (f1, exact_match, cover_em)] == [0, 0, 0]


@given(ANSWERS)
@example("The  Cat, a Hat & an Owl!")
def test_normalisation_is_done_once_and_for_all(answer: str) -> None:
    assert normalise(normalise(answer)) == normalise(answer) == " ".join(words(answer))
