"""The figures of an evaluation by hand: predictions, their means, parts and intervals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from calibadv.evaluation.figures import (
    Estimate,
    bootstrap_means,
    f1_by_benchmark,
    figures,
    mean_f1,
    mean_of_means_interval,
    percentile_interval,
)
from calibadv.evaluation.prediction import Prediction, predict
from calibadv.types import Question, TurnKind
from tests.build import trajectory

QUESTION = Question("set/q", "who?", ("Ada Lovelace", "Ada"), metadata={"hops": "2", "type": "bridge"})
LOST = predict(replace(QUESTION, id="set/lost"), None)


def prediction(f1: float, **fields: object) -> Prediction:
    """A scored prediction; only what a test is about has to be named."""
    whole = predict(QUESTION, trajectory(f1, [2, 1]))
    return replace(whole, **{"em": float(f1 == 1), "cover_em": float(f1 >= 0.5), **fields})  # type: ignore[arg-type]


def test_a_prediction_has_the_answer_its_scores_and_what_it_cost() -> None:
    greedy = replace(trajectory(0.5, [3, 2, 1], logprob=-0.5), answer="Ada King, born Ada", truncated=True)
    assert predict(QUESTION, greedy) == Prediction(
        id="set/q",
        question="who?",
        golden_answers=("Ada Lovelace", "Ada"),
        answer="Ada King, born Ada",
        f1=0.5,
        em=0.0,
        cover_em=1.0,
        format=1.0,
        searches=2,
        tokens=6,
        perplexity=pytest.approx(np.exp(0.5)),
        truncated=True,
        infra_failed=False,
        hops=2,
        type="bridge",
    )


@pytest.mark.parametrize("failed", [None, replace(trajectory(1.0, [2, 1]), infra_failed=True)])
def test_what_the_environment_failed_has_no_scores(failed: object) -> None:
    lost = predict(QUESTION, failed)  # type: ignore[arg-type]
    assert (lost.infra_failed, lost.f1, lost.em, lost.cover_em, lost.format) == (True, None, None, None, None)
    assert (lost.answer, lost.searches, lost.tokens, lost.perplexity) == (None, None, None, None)
    assert (lost.id, lost.hops, lost.type) == ("set/q", 2, "bridge")


def test_no_answer_is_wrong_and_a_search_that_was_not_carried_out_was_made() -> None:
    whole = trajectory(0.0, [2, 2])
    silent = replace(whole, answer=None, turns=(whole.turns[0], replace(whole.turns[1], kind=TurnKind.SEARCH)))
    answered = predict(QUESTION, silent)
    assert (answered.answer, answered.em, answered.cover_em, answered.searches) == (None, 0, 0, 2)


def test_hops_are_what_the_set_says_else_the_gold_sub_queries_else_unknown() -> None:
    def hops(**fields: object) -> int | None:
        return predict(replace(QUESTION, **fields), None).hops  # type: ignore[arg-type]

    assert hops(metadata={"hops": "3"}, sub_queries=("a", "b")) == 3
    assert hops(metadata={}, sub_queries=("a", "b")) == 2
    assert hops(metadata={"hops": "many"}) is None
    assert hops(metadata={}) is None


def test_a_prediction_survives_json() -> None:
    for one in (prediction(0.5, answer="Zoë “Z”\u2028"), LOST):
        assert Prediction.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_figures_by_hand() -> None:
    given = [
        prediction(1.0, searches=1, tokens=10, perplexity=2.0, hops=10),
        prediction(0.5, searches=2, tokens=20, perplexity=60.0, format=0.0, truncated=True),
        prediction(0.0, searches=0, tokens=0, perplexity=None, hops=None, type=None),
        LOST,
    ]
    of_set = figures(given)
    assert (of_set.questions, of_set.infra_failed, of_set.truncated) == (4, 1, 1)
    means = {name: getattr(of_set, name).mean for name in ("f1", "em", "cover_em", "format")}
    assert means == {
        "f1": 0.5,
        "em": pytest.approx(1 / 3),
        "cover_em": pytest.approx(2 / 3),
        "format": pytest.approx(2 / 3),
    }
    assert (of_set.searches, of_set.tokens, of_set.high_ppl_ratio) == (1, 10, 0.5)  # of the two that wrote anything
    assert {name: (part.questions, part.f1) for name, part in of_set.by_hops.items()} == {"2": (1, 0.5), "10": (1, 1.0)}
    assert list(of_set.by_hops) == ["2", "10"]
    (bridge,) = of_set.by_type.values()
    assert (bridge.questions, bridge.f1, bridge.em, bridge.cover_em) == (2, 0.75, 0.5, 1.0)


def test_lost_questions_change_no_mean_and_no_interval() -> None:
    scored = [prediction(f1) for f1 in (0.0, 0.3, 1.0, 1.0)]
    with_lost = figures([*scored, LOST])
    assert (with_lost.f1, with_lost.em) == (figures(scored).f1, figures(scored).em)


def test_a_set_without_any_scored_question_has_no_figures_but_counts() -> None:
    lost = figures([LOST])
    assert lost.metrics() == {"questions": 1, "infra_failed": 1, "truncated": 0}
    assert (lost.f1, lost.searches, lost.by_hops, lost.by_type) == (None, None, {}, {})


def test_metrics_carry_intervals_under_their_own_names() -> None:
    metrics = figures([prediction(1.0), prediction(0.0)]).metrics()
    assert (metrics["f1_low"], metrics["f1"], metrics["f1_high"]) == (0.0, 0.5, 1.0)  # 1 of 4 draws is at either end


def test_figures_are_those_of_the_same_predictions_again() -> None:
    given = [prediction(f1) for f1 in (0.1, 0.9, 0.4, 0.4, 0.7)]
    assert figures(given) == figures(list(given))


def test_the_mean_weighs_every_benchmark_the_same() -> None:
    small, large = [prediction(1.0)], [prediction(0.0)] * 9
    mean = mean_f1([small, large])
    assert mean == Estimate(0.5, 0.5, 0.5)  # not 0.1; within each benchmark nothing varies
    assert mean_f1([small, [LOST]]) is None
    assert mean_f1([]) is None


def test_questions_that_the_search_failed_have_no_part_in_a_data_sets_f1() -> None:
    given = [prediction(1.0, id="nq/1"), prediction(0.25, id="musique/2hop/7"), LOST, replace(LOST, id="musique/8")]
    assert f1_by_benchmark(given) == {"musique": 0.25, "nq": 1.0, "mean": 0.625}
    assert f1_by_benchmark(given[:1]) == f1_by_benchmark([]) == {}


def test_bootstrap_means_are_those_of_resampled_questions() -> None:
    means_D = bootstrap_means(np.asarray([0.0, 1.0]), draws=4000)
    assert set(means_D) == {0.0, 0.5, 1.0}
    assert (means_D == 0.5).mean() == pytest.approx(0.5, abs=0.03)  # 1/4, 1/2, 1/4
    assert percentile_interval(means_D) == (0.0, 1.0)


def test_means_are_those_of_one_draw_after_the_other() -> None:
    values_QM = np.random.default_rng(1).random((700, 3))  # of which 31 draws are made together
    rng = np.random.default_rng(5)
    expected = [values_QM[rng.integers(700, size=700)].mean(axis=0) for _ in range(70)]
    assert np.array_equal(bootstrap_means(values_QM, draws=70, seed=5), expected)


def test_measures_of_one_question_are_drawn_together() -> None:
    values_Q = np.asarray([0.1, 0.2, 0.9])
    means_DM = bootstrap_means(np.stack([values_Q, 2 * values_Q], axis=1), draws=50)
    assert np.allclose(means_DM[:, 1], 2 * means_DM[:, 0])
    assert np.allclose(means_DM[:, 0], bootstrap_means(values_Q, draws=50))


def test_an_interval_has_the_width_that_the_normal_approximation_gives() -> None:
    values_Q = np.arange(400) % 2.0  # mean 1/2, standard error 1/2 / sqrt(400)
    low, high = percentile_interval(bootstrap_means(values_Q, draws=4000))
    assert (low, high) == (pytest.approx(0.5 - 1.96 * 0.025, abs=0.004), pytest.approx(0.5 + 1.96 * 0.025, abs=0.004))
    # The mean of two independent sets: sqrt(2) times as narrow.
    low, high = mean_of_means_interval([values_Q, values_Q], draws=4000)
    assert high - low == pytest.approx(2 * 1.96 * 0.025 / np.sqrt(2), abs=0.005)


@pytest.mark.parametrize(("questions", "draws"), [(0, 10), (3, 0)])
def test_nothing_to_draw_is_refused(questions: int, draws: int) -> None:
    with pytest.raises(ValueError, match=f"{questions} questions, {draws} draws"):
        bootstrap_means(np.zeros(questions), draws=draws)
