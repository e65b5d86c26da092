"""The README of a trained model's folder: what it is, how it was made, what it is worth. Markdown, of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibadv.config import Config
from calibadv.evaluation.figures import bootstrap_means, percentile_interval
from calibadv.evaluation.models import CONFIGURATION
from calibadv.evaluation.prediction import Prediction
from calibadv.methods import all_params
from calibadv.tables import markdown_rows
from calibadv.tracking.record import RolloutRecord
from calibadv.training.summary import before_and_after

CARD = "README.md"
_HEAD = ("", "before", "after", "95 % interval")


def model_card(
    config: Config,
    summary: Mapping[str, Any],
    digests: Mapping[str, str],
    answers: Sequence[Prediction],
    example: RolloutRecord | None,
) -> str:
    """The card of a finished run's model. `answers` are those of its last evaluation, over which intervals are made.

    An interval is a bootstrap over questions; figures without one in the answers have none.
    """
    method, model = config.method, Path(config.model.path).name
    params = ", ".join(f"{name} = {value!r}" for name, value in all_params(method.name, method.params).items())
    parts = [
        f"# {config.run_name}",
        f"A search agent: {model}, trained by `{method.name}` for {config.run.steps} steps (seed {config.run.seed}) "
        "with calibadv. It thinks, searches and answers in the dialogue "
        f"`{config.rollout.dialogue}`; `{CONFIGURATION}` beside this file is its whole configuration, and "
        "`calibadv serve` and `calibadv evaluate` ask it as that says.",
        f"Parameters of the method: {params or 'none'}.",
        "## Evaluation",
        f"{len(answers)} held-out questions of {Path(config.data.test).name}, answered greedily.",
        markdown_rows(_HEAD, _figures(summary, answers)),
        "## Data",
        markdown_rows(("", "file", "digest"), _data(config, digests)),
        "## Licence",
        f"The weights come from {model}: its licence holds for them. Documents and questions have their own.",
    ]
    return "\n\n".join(part.strip() for part in [*parts, *_example(example)]) + "\n"


def _figures(summary: Mapping[str, Any], answers: Sequence[Prediction]) -> list[list[str | int | float]]:
    before, after = before_and_after(summary)
    return [[name, f"{before[name]:.3f}", f"{after[name]:.3f}", _interval(name, answers)] for name in after]


def _interval(name: str, answers: Sequence[Prediction]) -> str:
    values = [value for answer in answers if (value := getattr(answer, name)) is not None]
    if len(values) < 2:
        return ""
    low, high = percentile_interval(bootstrap_means(np.asarray(values, dtype=np.float64)[:, None]))
    return f"{low:.3f} to {high:.3f}"


def _data(config: Config, digests: Mapping[str, str]) -> list[list[str | int | float]]:
    named = {"train": config.data.train, "test": config.data.test, "corpus": config.data.corpus}
    named["model"] = config.model.path
    return [[name, Path(given).name, f"`{digests.get(name, '')}`"] for name, given in named.items()]


def _example(example: RolloutRecord | None) -> list[str]:
    if example is None:
        return []
    turns = "\n".join(turn.text for turn in example.turns).replace("```", "'''")
    return ["## One rollout", f"> {' '.join(example.question.split())}", f"```text\n{turns}\n```"]
