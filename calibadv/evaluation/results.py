"""What a folder of evaluations holds: every model's finished sets, with their answers and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibadv.evaluation.figures import Estimate, Figures, figures, mean_f1
from calibadv.evaluation.prediction import Prediction, read_predictions, write_predictions
from calibadv.files import write_text
from calibadv.tracking.run_files import PREDICTIONS

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class SetResult:
    """A model's answers to one set."""

    name: str
    predictions: tuple[Prediction, ...]
    figures: Figures


@dataclass(frozen=True, slots=True)
class ModelResult:
    """A row of the table."""

    name: str
    sets: dict[str, SetResult]

    def mean(self, sets: Sequence[str]) -> Estimate | None:
        """The mean of the sets' mean F1; None unless every one of them has a score: other means do not compare."""
        if any(name not in self.sets for name in sets):
            return None
        return mean_f1([self.sets[name].predictions for name in sets])


def finish_set(folder: Path, question_ids: Sequence[str]) -> Figures:
    """The figures of a set of which every question was asked; writes metrics.json last: it says that the set is done.

    predictions.jsonl is put into the order of the questions, a line each: what ended in between leaves no trace.
    """
    found = read_predictions(folder / PREDICTIONS)
    predictions = [found[question_id] for question_id in question_ids]
    write_predictions(folder / PREDICTIONS, predictions)
    of_set = figures(predictions)
    write_text(folder / METRICS, json.dumps(of_set.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return of_set


def read_results(out: Path, models_first: Sequence[str] = ()) -> list[ModelResult]:
    """Every model with a finished set below `out`: those of `models_first` in their order, then the others by name."""
    found: dict[str, dict[str, SetResult]] = {}
    for path in sorted(out.glob(f"*/*/{METRICS}")):
        predictions = tuple(read_predictions(path.parent / PREDICTIONS).values())
        result = SetResult(path.parent.name, predictions, figures(predictions))
        found.setdefault(path.parent.parent.name, {})[result.name] = result
    names = [*(name for name in dict.fromkeys(models_first) if name in found), *sorted(set(found) - set(models_first))]
    return [ModelResult(name, found[name]) for name in names]
