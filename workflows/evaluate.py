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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

from calibadv.cluster.names import app_name
from calibadv.evaluation.asking import Rollouts, ask_all, cluster_rollouts, waiting_questions
from calibadv.evaluation.models import EvaluatedModel
from calibadv.evaluation.plan import Plan, make_plan
from calibadv.evaluation.results import ModelResult, finish_set, read_results
from calibadv.evaluation.tables import write_tables
from calibadv.evaluation.tracked import log_result, log_tables, open_run
from calibadv.rollout.protocols import SearchFn
from calibadv.tracking.mlflow_run import MlflowRun
from workflows.command import run_command
from workflows.evaluation_options import parse_command

log = logging.getLogger("workflows.evaluate")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every question was answered. 1: for some the search failed. 2: refused, nothing started. 130: interrupted."""
    command = parse_command(sys.argv[1:] if arguments is None else arguments, __doc__)
    return evaluate(make_plan(command), searching, cluster_rollouts, open_run)


@contextmanager
def searching(plan: Plan) -> Iterator[Callable[[], SearchFn]]:
    """A factory of search tools for the engines, over an app that answers. Inside a running Ray, that one is used."""
    from serve.search_client import search_factory, shared_name  # with Ray and RLlib, seconds: only to ask
    from serve.shared_search import take_counts
    from workflows.session import pool_cpus, ray_of, served_search

    log.info("Ray and the search app over %s", plan.corpus)
    config, app = plan.models[0].config, search_app(plan)
    cpus = max(pool_cpus(model.config) for model in plan.models)
    with ray_of(config, cpus) as ends, served_search(config, plan.corpus, app, stop=not ends):
        yield search_factory(config.search, app)
        if config.search.together:
            counts = take_counts(shared_name(app)).items()
            log.info("searches: %s", ", ".join(f"{value:g} {name.removeprefix('search/')}" for name, value in counts))


def search_app(plan: Plan) -> str:
    """The search app's name: of what is locked while it is written, for one `out` may be filled by several at once."""
    return app_name("search-evaluation", *(plan.folder(model, asked) for model in plan.models for asked in plan.sets))


def evaluate(
    plan: Plan,
    searching: Callable[[Plan], AbstractContextManager[Callable[[], SearchFn]]],
    roll: Rollouts,
    open_run: Callable[[Plan, EvaluatedModel], MlflowRun],
) -> int:
    """Asks what is still to be asked, model after model, and writes the tables after each."""
    failed = 0
    with ExitStack() as stack:
        search = cache(lambda: stack.enter_context(searching(plan)))
        runs: list[MlflowRun] = []  # they end together, when the tables are whole
        for model in plan.models:
            runs.append(stack.enter_context(open_run(plan, model)))
            if asks := waiting_questions(plan, model):
                log.info("%s: %d questions; its engines start", model.name, len(asks))
                failed += ask_all(plan, model, asks, search, roll)
            results, tables = _finish(plan, model)
            log_result(runs[-1], plan, model, next(r for r in results if r.name == model.name))
        for run in runs:
            log_tables(run, tables)
    log.info("tables: %s\n%s", ", ".join(map(str, tables)), tables[0].read_text(encoding="utf-8"))
    return 1 if failed else 0


def _finish(plan: Plan, model: EvaluatedModel) -> tuple[list[ModelResult], list[Path]]:
    """Figures of the model's sets, and the tables of all that the folder holds by now."""
    for questions in plan.sets:
        finish_set(plan.folder(model, questions), [question.id for question in questions.questions])
    results = read_results(plan.out, [m.name for m in plan.models])
    return results, write_tables(results, plan.out, [questions.name for questions in plan.sets])


if __name__ == "__main__":
    sys.exit(run_command(main))
