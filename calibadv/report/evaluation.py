"""Held-out questions before and after training, each figure with its bootstrap interval over questions, and the change.

Q questions, of one evaluation or of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calibadv.evaluation.figures import DRAWS, Doubles, Estimate, bootstrap_means, figures, percentile_interval
from calibadv.evaluation.prediction import Prediction
from calibadv.report.reading import RunFiles

_ROWS = (
    ("F1", "f1", "eval/f1"),
    ("exact match", "em", "eval/em"),
    ("cover-EM", "cover_em", ""),
    ("format", "format", "eval/format"),
    ("searches a question", "searches", "eval/searches"),
    ("tokens a question", "tokens", "eval/action_tokens"),
)
"""Label, field of a prediction, metric."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. None: not known. `before` without an interval: the run kept its mean alone."""

    label: str
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None  # over the questions of both, paired


@dataclass(frozen=True, slots=True)
class Share:
    """F1 of the questions of one number of hops, or of one type."""

    part: str
    questions: int
    before: float | None
    after: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The table, what it is of, and its parts."""

    rows: tuple[Row, ...]
    step: int | None  # of the newest evaluation; None: there was none
    questions_before: int
    questions: int
    by_hops: tuple[Share, ...]
    by_type: tuple[Share, ...]


def evaluation_of(run: RunFiles) -> Evaluation:
    """The first and the newest evaluation side by side. Rows of which nothing is known are left out."""
    evaluated = [row for row in run.history if "eval/f1" in row]
    first = evaluated[0] if evaluated and evaluated[0]["step"] == 0 else {}
    newest = int(evaluated[-1]["step"]) if evaluated else None
    trained = bool(newest)  # else the answers at hand are the first ones
    answers = run.answers if trained else {}
    before = run.first_answers or ({} if trained else run.answers)
    rows = []
    for label, name, metric in _ROWS:
        was, now = _values(before, name), _values(answers, name)
        mean = first.get(metric)
        row = Row(
            label,
            _estimate(was) or (None if mean is None else Estimate(mean, mean, mean)),
            _estimate(now),
            _estimate({question: now[question] - was[question] for question in now if question in was}),
        )
        if row.before or row.after:
            rows.append(row)
    return Evaluation(
        tuple(rows),
        newest,
        len(before) or int(first.get("eval/questions", 0)),
        len(answers),
        _parts(before, answers, "by_hops"),
        _parts(before, answers, "by_type"),
    )


def _values(answers: Mapping[str, Prediction], name: str) -> dict[str, float]:
    return {question: float(getattr(answer, name)) for question, answer in answers.items() if not answer.infra_failed}


def _estimate(values: Mapping[str, float]) -> Estimate | None:
    if not values:
        return None
    values_Q: Doubles = np.asarray([values[question] for question in sorted(values)], dtype=np.float64)
    return Estimate(float(values_Q.mean()), *percentile_interval(bootstrap_means(values_Q, draws=DRAWS)))


def _parts(before: Mapping[str, Prediction], after: Mapping[str, Prediction], name: str) -> tuple[Share, ...]:
    """Of the questions of `after`: an evaluation in between asks fewer than the first one."""
    was = getattr(figures([answer for question, answer in before.items() if question in after]), name)
    now = getattr(figures(list(after.values())), name)
    return tuple(Share(part, of.questions, was[part].f1 if part in was else None, of.f1) for part, of in now.items())
