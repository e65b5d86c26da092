"""Prompts before a run: that each is in the budget and right, and the day that they are told.

The day is one for a run and all that goes on from it, where a chat template writes the date.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from calibadv.cluster.factories import make_dialogue, make_limits, open_dialogue
from calibadv.config import Config
from calibadv.methods import Method
from calibadv.rollout.agent import EMPTY
from calibadv.rollout.protocols import Result
from calibadv.types import Question

log = logging.getLogger(__name__)

DATE = "rollout.date"
_SPLITS = 16  # tokens by which the words around a question may differ with it: they split otherwise beside it


def with_date(config: Config, method: Method, model: Path, earlier: str = "") -> Config:
    """The configuration with `rollout.date` set, if the model's chat template writes the date and none is given.

    `earlier`: the day of what is gone on with; "" = today.
    """
    if config.rollout.date:
        return config
    dialogue = open_dialogue(config, method, str(model))
    if not dialogue.writes_date():
        return config
    day = earlier or date.today().isoformat()
    log.info("the chat template writes the date: every prompt says %s, also tomorrow (%s)", day, DATE)
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"date": day})})


def check_prompts(config: Config, method: Method, model: Path, questions: Sequence[Question]) -> None:
    """Raises ValueError if no prompt of the chat template is right, or a question's is over the token budget.

    Also where not even an empty observation is within its own. Every question is encoded whose bytes could be too many
    tokens, the longest first. What is odd in the template, but no error, is warned of.
    """
    dialogue, limits = make_dialogue(config, method, str(model)), make_limits(config)
    for problem in dialogue.problems():
        log.warning("%s: %s", config.model.path, problem)
    dialogue.observed([Result()], EMPTY, limits.max_observation_tokens)
    room = limits.max_prompt_tokens - len(dialogue.prompt_ids("?")) - _SPLITS
    for question in sorted(questions, key=_most_tokens, reverse=True):
        if _most_tokens(question) <= room:
            break
        limits.check_prompt(dialogue.prompt_ids(question.text), question)


def _most_tokens(question: Question) -> int:
    """A token is a byte at least; a "<" may be written as ‹, which has three."""
    return len(question.text.encode("utf-8", "replace")) + 2 * question.text.count("<")


def date_of_answers(manifests: Iterable[Path]) -> str:
    """The day of an evaluation that is taken up again; "" where none of its manifests has one."""
    for manifest in manifests:
        if manifest.is_file() and (day := json.loads(manifest.read_text("utf-8")).get("dialogue", {}).get("date")):
            return str(day)
    return ""
