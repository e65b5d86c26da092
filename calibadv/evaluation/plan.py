"""What an evaluation will do, all of it checked before anything is started: models, questions, corpus, folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibadv.cluster.places import check_places
from calibadv.cluster.servers import check_routes
from calibadv.data.digests import corpus_digest, model_digest
from calibadv.data.questions import load_questions
from calibadv.data.row_report import say_rows
from calibadv.data.tally import Tally
from calibadv.evaluation.identity import (
    MANIFEST,
    check_comparable,
    identity,
    keep_identity,
    search_identity,
)
from calibadv.evaluation.models import EvaluatedModel, find_models
from calibadv.pocket import data_file
from calibadv.types import Question, TokenUnit


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for, checked for form only."""

    models: tuple[str, ...]
    sets: tuple[tuple[str, str], ...]  # (name, file or "pocket"), the table's columns in order
    corpus: str
    recipe: Path | None
    out: Path | None  # None: "evaluation" beside the runs
    questions: int | None  # the first of each set; None: all
    overrides: Mapping[str, Any]  # of the configuration
    pocket: Path  # the recipe of the model "pocket" where none is given


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """One benchmark: a column of the table."""

    name: str
    path: Path
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every model is asked every question of every set; answers lie in `out`/<model>/<set>/."""

    models: tuple[EvaluatedModel, ...]
    sets: tuple[QuestionSet, ...]
    corpus: Path
    out: Path

    def folder(self, model: EvaluatedModel, questions: QuestionSet) -> Path:
        """Where the answers of a model to a set are kept."""
        return self.out / model.name / questions.name


def make_plan(command: Command) -> Plan:
    """The plan of a command. Writes each set's manifest, or checks the one of the call that is taken up again.

    ValueError or FileNotFoundError for whatever cannot be evaluated, or not into this folder.
    """
    models = find_models(command.models, command.recipe, command.overrides, command.pocket)
    check_one_search(models)
    check_places(models[0].config, os.environ)
    check_routes(models[0].config)
    cache = models[0].config.run.cache
    tokens = one_scoring(models)
    tallies = {name: Tally() for name, _ in command.sets}
    sets = tuple(_load_set(name, file, cache, command.questions, tokens, tallies[name]) for name, file in command.sets)
    corpus = data_file(command.corpus, "corpus", cache)
    out = (command.out or models[0].config.run.folder / "evaluation").absolute()
    plan = Plan(_dated(models, out), sets, corpus, out)
    _check_prompts(plan.models, sets)
    _keep_identities(plan)
    for questions in sets:  # after all checks: what is refused is said in one line
        say_rows(questions.name, questions.path, tallies[questions.name], tokens)
    return plan


def _dated(models: Sequence[EvaluatedModel], out: Path) -> tuple[EvaluatedModel, ...]:
    """The models, each told the day of its run, or of its answers that are there already."""
    from calibadv.cluster.prompts import date_of_answers, with_date  # torch: not before the cheap checks

    def dated(model: EvaluatedModel) -> EvaluatedModel:
        earlier = date_of_answers(sorted(out.glob(f"{model.name}/*/{MANIFEST}")))
        return replace(model, config=with_date(model.config, model.config.method.made, model.folder, earlier))

    return tuple(map(dated, models))


def _keep_identities(plan: Plan) -> None:
    corpus = corpus_digest(plan.corpus)
    wanted = {
        (model.name, questions.name): identity(model, digest, questions.questions, corpus)
        for model in plan.models
        for digest in [model_digest(model.folder)]
        for questions in plan.sets
    }
    for (_, set_name), of_set in wanted.items():  # all checks before the first manifest is written
        check_comparable(plan.out, of_set, set_name)
    for model in plan.models:
        for questions in plan.sets:
            about = {
                "model": str(model.folder),
                "method": model.config.method.name,
                "set": str(questions.path),
                "corpus": str(plan.corpus),
            }
            keep_identity(plan.folder(model, questions), wanted[model.name, questions.name], about)


def _load_set(name: str, file: str, cache: Path, limit: int | None, tokens: TokenUnit, tally: Tally) -> QuestionSet:
    path = data_file(file, "test", cache)
    if not path.exists():
        raise FileNotFoundError(f"--set {name}: there is no file {path}")
    return QuestionSet(name, path, tuple(load_questions(path, tokens=tokens, tally=tally)[:limit]))


def one_scoring(models: Sequence[EvaluatedModel]) -> TokenUnit:
    """By what the answers of all models are scored; ValueError where their runs say different things."""
    first = models[0]
    for model in models[1:]:
        if model.config.reward.tokens != first.config.reward.tokens:
            raise ValueError(
                f"reward.tokens is '{first.config.reward.tokens}' for {first.name} and '{model.config.reward.tokens}' "
                f"for {model.name}: models of one table are scored alike; set it with --reward.tokens"
            )
    return first.config.reward.tokens


def check_one_search(models: Sequence[EvaluatedModel]) -> None:
    """All models answer through one search app; what their runs say of it must be one thing."""
    first = search_identity(models[0].config)
    for model in models[1:]:
        other = search_identity(model.config)
        for key in {**first, **other}:
            if other.get(key) != first.get(key):
                one, two = (of.config.search.model_dump(mode="json")[key] for of in (models[0], model))
                raise ValueError(
                    f"search.{key} is {one!r} for {models[0].name} and {two!r} for {model.name}: models "
                    f"of one table search alike; set it with --search.{key}, or evaluate them into two --out folders"
                )


def _check_prompts(models: Sequence[EvaluatedModel], sets: Sequence[QuestionSet]) -> None:
    from calibadv.cluster.prompts import check_prompts  # torch: not before the cheap checks

    for model in models:
        for questions in sets:
            check_prompts(model.config, model.config.method.made, model.folder, questions.questions)
