"""Answer scores as Search-R1 defines them, and the format gate."""

from __future__ import annotations

import numpy as np
import pytest

from calibadv.rewards.answer import best_over_golden, exact_match, f1, normalise
from calibadv.rewards.format import format_reward
from calibadv.tags import parse_action
from calibadv.types import Turn


def turns(*texts: str) -> list[Turn]:
    ids, none = np.zeros(1, np.int64), np.zeros(0, np.int64)
    return [Turn(parse_action(t).kind, ids, np.zeros(1, np.float32), none, t) for t in texts]


SEARCH = "<think> a </think>\n<search> q </search>"
ANSWER = "<think> b </think>\n<answer> x </answer>"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  U.S.A.!", "usa"),
        ("a an the", ""),
        ("Élan vital", "élan vital"),
        ("1,000", "1000"),
        ("theatre", "theatre"),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_f1_by_hand() -> None:
    assert f1("Jan Philip Solovej", "Philip Solovej") == pytest.approx(0.8)  # precision 2/3, recall 1
    assert f1("new new york", "new york") == pytest.approx(0.8)  # the repeated word counts once
    assert f1("yes", "no") == 0
    assert f1("the", "a") == 0


def test_best_golden_answer_counts_and_a_missing_answer_is_zero() -> None:
    assert best_over_golden("NYC", ("New York City", "nyc")) == 1
    assert best_over_golden(None, ("x",)) == 0
    assert best_over_golden("the York!", ("york",), exact_match) == 1


@pytest.mark.parametrize(
    ("texts", "reward"),
    [
        ((SEARCH, ANSWER), 1),
        ((SEARCH, SEARCH, ANSWER), 1),
        ((SEARCH + "\n", "\n" + ANSWER), 1),
        ((ANSWER,), 0),  # a search is required
        ((SEARCH,), 0),
        ((SEARCH, SEARCH), 0),
        ((SEARCH, "<answer> x </answer>"), 0),  # no think
        ((SEARCH, "well " + ANSWER), 0),
        ((SEARCH, ANSWER + " bye"), 0),
        ((SEARCH, "<think> <think> b </think><answer> x </answer>"), 0),
        ((SEARCH, "<think> b <search> </think><answer> x </answer>"), 0),
        ((SEARCH, "<think> b </think> <information> x </information> <answer> x </answer>"), 0),
        ((SEARCH, "just words"), 0),
    ],
)
def test_format(texts: tuple[str, ...], reward: int) -> None:
    assert format_reward(turns(*texts)) == reward


def test_answer_without_search_is_well_formed_only_where_allowed() -> None:
    assert format_reward(turns(ANSWER), require_search=False) == 1


def test_a_prefilled_think_belongs_to_the_turn() -> None:
    texts = [t.removeprefix("<think>") for t in (SEARCH, ANSWER)]
    assert format_reward(turns(*texts), prefill="<think>") == 1
    assert format_reward(turns(*texts)) == 0
