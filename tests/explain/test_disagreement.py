"""Who blames which search, and how well silver stands for gold; every number counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibadv.explain.disagreement import Search, Why, figures, most_disputed, searches_of
from calibadv.explain.replay import credited, methods_for, with_known_gold
from calibadv.explain.truth import truth_by_step, truth_of
from calibadv.methods import make_method
from calibadv.types import Group, Question
from tests.build import group, trajectory
from tests.explain.test_replay import stored

GOLD = ("a", "g")


def told() -> Group:
    """Right: found a, b. Wrong ones: a again (silver and gold); b (silver, no gold); g (gold, not silver); x, y."""
    right = trajectory(1.0, [1, 1], [["a", "b"]])
    wrong = trajectory(0.0, [1, 1, 1, 1, 1], [["a"], ["b"], ["g"], ["x", "y"]])
    return replace(group(right, wrong), question=Question("test/q", "who?", ("Ada",), gold_doc_ids=GOLD))


def searched(*groups: Group) -> list[Search]:
    """The searches of a run whose steps have one of the groups each, as `calibadv explain` reads them."""
    steps = with_known_gold(stored(one) for one in groups)
    return [search for step in steps for search in searches_of(step, credited(step, methods_for(step, ["grpo"])))]


def test_why_a_search_is_disputed_follows_from_what_it_found() -> None:
    columns = credited(stored(told()), methods_for(stored(told()), ["grpo"]))
    searches = searches_of(stored(told()), columns)
    assert [(s.rollout, s.turn) for s in searches] == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert [s.c for s in searches] == [1, 1, 1, 0, 0]
    assert [s.gold_share for s in searches] == [0.5, 1, 0, 1, 0]
    assert [s.why for s in searches] == [Why.OTHER, Why.SPARED, Why.SILVER_MISLEADS, Why.GOLD_BLAMED, Why.OTHER]


def test_figures_count_blame_silver_masses_and_agreement() -> None:
    columns = credited(stored(told()), methods_for(stored(told()), ["grpo"]))
    made = figures(searches_of(stored(told()), columns), columns)
    grpo, calibadv = made["grpo"], made["calibadv"]
    # GRPO blames the four searches of the wrong rollout, two of them with silver documents alone.
    assert (grpo.searches, grpo.blamed, grpo.blamed_all_silver, grpo.blamed_any_silver) == (5, 4, 0.5, 0.5)
    assert (calibadv.blamed, calibadv.blamed_all_silver) == (2, 0)
    # 2 tokens of +0.71 and 5 of -0.71; calibrated: N 3 x 0.71, and the answers are balanced already (1 token each).
    assert grpo.neg_pos == pytest.approx(2.5)
    assert calibadv.neg_pos == pytest.approx(1.5)
    assert calibadv.agrees == {"calibadv": 1.0, "grpo": 0.6}


def test_the_most_disputed_search_is_one_that_one_method_blames_and_another_praises() -> None:
    # "Ada" stands in a alone: MT-GRPO praises the wrong rollout that found it, GRPO and CalibAdv blame it.
    found = [trajectory(1.0, [1, 1], [["b"]]), trajectory(0.0, [1, 1], [["a"]]), trajectory(0.0, [1, 1], [["b"]])]
    disputed = replace(group(*found), question=told().question)
    columns = credited(stored(disputed), methods_for(stored(disputed), ["grpo", "mt_grpo"]))
    first, *rest = most_disputed(searches_of(stored(told()), columns))
    assert (first.rollout, first.opposed) == (1, 2)
    assert {name: first.sign(name) for name in first.credit} == {"calibadv": -1, "grpo": -1, "mt_grpo": 1}
    assert [search.opposed for search in rest] == [0, 0]


def test_truth_is_of_searches_below_the_mean_with_known_gold() -> None:
    columns = credited(stored(told(), told()), methods_for(stored(told()), ["grpo"]))
    truth = truth_of(searches_of(stored(told()), columns))
    assert truth is not None
    # Of each wrong rollout: c > 0 twice, one of them gold; gold twice, one of them with c > 0.
    assert truth.searches == 8
    assert truth.precision is not None
    assert truth.recall is not None
    assert (truth.precision.value, truth.precision.low, truth.precision.high, truth.precision.of) == (0.5, 0.5, 0.5, 4)
    assert (truth.recall.value, truth.recall.of) == (0.5, 4)
    assert truth.calibration == ((0.0, 0.5, 4), (1.0, 0.5, 4))


def test_without_gold_ids_or_failures_there_is_no_truth() -> None:
    unknown = replace(told(), question=Question("test/q", "who?", ("Ada",)))
    assert truth_of(searched(unknown)) is None
    equal = group(trajectory(1.0, [1, 1], [["a"]]), trajectory(1.0, [1, 1], [["x"]]))
    known = replace(equal, question=told().question)
    assert truth_of(searched(known)) is None


def test_gold_ids_of_another_corpus_are_not_known_and_texts_tell_which_of_its_documents_they_are() -> None:
    hashes = replace(told(), question=replace(told().question, gold_doc_ids=("p-3f2a", "p-99ab")))
    assert truth_of(searched(hashes)) is None
    assert {search.why for search in searched(hashes)} == {Why.SPARED, Why.OTHER}
    (column,) = credited(*with_known_gold([stored(hashes)]), {"criticsearch": make_method("criticsearch", {})})
    assert column["criticsearch"].note == "no gold passage of the question is known"
    assert {turn.reward for t in column["criticsearch"].group.trajectories for turn in t.turns} == {0.0}
    # One step of the run that has one of them is enough: a search that found none then found none.
    assert [search.gold_share for search in searched(hashes, told())[:5]] == [0, 0, 0, 0, 0]
    texts = replace(hashes.question, gold_titles=("A", "Z"), gold_passages=("by Ada", "z"))  # a of DOCUMENTS is "A"
    assert [search.gold_share for search in searched(replace(hashes, question=texts))] == [0.5, 1, 0, 0, 0]


def test_truth_by_step_is_of_parts_with_about_as_many_steps_each() -> None:
    columns = credited(stored(told()), methods_for(stored(told()), ["grpo"]))
    steps = [replace(stored(told()), step=step) for step in (0, 5, 10, 15, 20)]
    searches = [search for step in steps for search in searches_of(step, columns)]
    parts = truth_by_step(searches, windows=2)
    assert [(first, last, truth.searches) for first, last, truth in parts] == [(0, 10, 12), (15, 20, 8)]
    assert truth_by_step(searches[:5], windows=5)[0][:2] == (0, 0)
    assert truth_by_step([]) == []
