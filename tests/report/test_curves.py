"""What is drawn of a run's metrics, and what is marked on it."""

from __future__ import annotations

from calibadv.config import SentinelConfig
from calibadv.report.curves import alarm_spans, charts_of, columns_of, rollbacks
from tests.report.made_up import history


def test_a_chart_is_there_where_one_of_its_metrics_is_and_second_scales_are_charts_of_their_own() -> None:
    charts = {
        chart.title: chart for chart in charts_of([{"step": 1, "policy/entropy": 1, "rollout/high_ppl_ratio": 0}])
    }
    assert list(charts) == ["Entropy and perplexity", "PPL > 50"]
    assert charts["PPL > 50"].share
    assert charts["Entropy and perplexity"].log_above == 20


def test_a_metric_that_a_step_lacks_is_a_gap_and_numbers_have_six_digits() -> None:
    columns = columns_of([{"step": 0, "a": 1 / 3}, {"step": 1, "b": 2.0}])
    assert columns == {"a": [0.333333, None], "b": [None, 2.0], "step": [0.0, 1.0]}


def test_an_alarm_is_one_span_from_its_first_bad_step_to_its_last() -> None:
    rows = history(10)
    for row in rows[7:]:
        row["rollout/high_ppl_ratio"] = 0.5  # above 0.2 at steps 7 to 10; patience 3, so that it is raised at 9
    (span,) = alarm_spans(rows, SentinelConfig())
    assert (span.metric, span.since, span.until) == ("rollout/high_ppl_ratio", 7, 10)
    assert "above 0.2" in span.text
    for row in rows:
        row["sentinel/alarms"] = 0.0  # the sentinel itself saw none
    assert alarm_spans(rows, SentinelConfig()) == []


def test_a_roll_back_is_the_step_at_which_their_number_grows() -> None:
    counts = [0.0, 0.0, 1.0, 1.0, 2.0]
    assert rollbacks([{"step": s, "sentinel/rollbacks": count} for s, count in enumerate(counts)]) == [2, 4]
