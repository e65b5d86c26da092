"""Evaluate: `workflows/evaluate.py MODEL … --set NAME=FILE … --corpus FILE [--config RECIPE] [--section.key …]`.

MODEL is a run's folder (runs/x), a model's folder, a hub name, or "pocket"; NAME=MODEL gives its row a name. Every
model answers every question of every set, greedily, through the engines and the search app that training uses, asked
as its own run asked it. Answers and tables lie below --out (runs/evaluation). Called again it goes on: what was
answered is kept. `--set pocket=pocket --corpus pocket` is the pocket world's test set. More: docs/evaluation.md.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("evaluate")  # before what takes seconds to import

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from calibadv.evaluation.asking import Ask, ask_in_rounds, ask_model
from calibadv.evaluation.models import EvaluatedModel
from calibadv.evaluation.plan import Plan, make_plan
from calibadv.evaluation.prediction import Prediction, PredictionFile, read_predictions
from calibadv.evaluation.results import PREDICTIONS, ModelResult, finish_set, read_results
from calibadv.evaluation.tables import write_tables
from calibadv.evaluation.tracked import log_result, log_tables, open_run
from calibadv.rollout.protocols import SearchFn
from workflows.command import run_command
from workflows.evaluation_options import parse_command

log = logging.getLogger("workflows.evaluate")  # also when this file is __main__

_SAID_EVERY_S = 20.0  # how far a set is


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every question was answered. 1: for some the search failed. 2: refused, nothing started. 130: interrupted."""
    command = parse_command(sys.argv[1:] if arguments is None else arguments, __doc__)
    return evaluate(make_plan(command))


def evaluate(plan: Plan) -> int:
    """Asks what is still to be asked, model after model, and writes the tables after each."""
    failed = 0
    with ExitStack() as stack:
        search_factory: Callable[[], SearchFn] | None = None
        for model in plan.models:
            with open_run(plan, model) as run:
                asks = waiting_questions(plan, model)
                if asks and search_factory is None:
                    from workflows.evaluation_session import searching  # Ray, Serve and RLlib: only to ask

                    log.info("Ray and the search app over %s", plan.corpus)
                    search_factory = stack.enter_context(searching(plan))
                if asks:
                    assert search_factory is not None
                    log.info("%s: %d questions; its engines start", model.name, len(asks))
                    failed += _ask(plan, model, asks, search_factory)
                results, tables = _finish(plan, model)
                log_result(run, plan, model, next(r for r in results if r.name == model.name), tables)
    for model in plan.models[:-1]:  # their runs were closed before the table was whole
        with open_run(plan, model) as run:
            log_tables(run, tables)
    log.info("tables: %s\n%s", ", ".join(map(str, tables)), tables[0].read_text(encoding="utf-8"))
    return 1 if failed else 0


def waiting_questions(plan: Plan, model: EvaluatedModel) -> list[Ask]:
    """The questions that the model has not answered yet, those that the environment failed among them."""
    asks = []
    for questions in plan.sets:
        found = read_predictions(plan.folder(model, questions) / PREDICTIONS)
        answered = {question_id for question_id, prediction in found.items() if not prediction.infra_failed}
        asks += [Ask(questions.name, question) for question in questions.questions if question.id not in answered]
    return asks


def _ask(plan: Plan, model: EvaluatedModel, asks: Sequence[Ask], search_factory: Callable[[], SearchFn]) -> int:
    """How many questions the environment failed for good; every answer is on disk as soon as it is there."""
    with ExitStack() as stack:
        files = {
            questions.name: stack.enter_context(PredictionFile(plan.folder(model, questions) / PREDICTIONS))
            for questions in plan.sets
            if any(ask.set_name == questions.name for ask in asks)
        }
        progress = _Progress(model.name, Counter(ask.set_name for ask in asks))

        def keep(ask: Ask, prediction: Prediction) -> None:
            files[ask.set_name].append(prediction)
            progress.add(ask.set_name)

        return ask_in_rounds(asks, partial(ask_model, model=model, search_factory=search_factory), keep)


class _Progress:
    """Says from time to time how many of a model's questions are answered."""

    def __init__(self, model: str, of: Counter[str]) -> None:
        self._model, self._of = model, of
        self._done: Counter[str] = Counter()
        self._said_s = time.monotonic()

    def add(self, set_name: str) -> None:
        """One more question of the set is answered."""
        self._done[set_name] += 1
        whole = self._done[set_name] == self._of[set_name]
        if whole or time.monotonic() - self._said_s > _SAID_EVERY_S:
            self._said_s = time.monotonic()
            log.info("%s: %s %d/%d", self._model, set_name, self._done[set_name], self._of[set_name])


def _finish(plan: Plan, model: EvaluatedModel) -> tuple[list[ModelResult], list[Path]]:
    """Figures of the model's sets, and the tables of all that the folder holds by now."""
    for questions in plan.sets:
        finish_set(plan.folder(model, questions), [question.id for question in questions.questions])
    results = read_results(plan.out, [m.name for m in plan.models])
    return results, write_tables(results, plan.out, [questions.name for questions in plan.sets])


def _cli() -> int:
    return run_command(main)


if __name__ == "__main__":
    sys.exit(_cli())
