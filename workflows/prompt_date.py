"""The day that prompts are told where a chat template writes the date: one for a run and all that goes on from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from calibadv.checkpoints.manifest import Damaged
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.cluster.factories import open_dialogue
from calibadv.config import Config
from calibadv.rollout.chat_template import writes_date
from workflows.checkpointing import IDENTITY
from workflows.snapshots import RUN

log = logging.getLogger(__name__)

KEY = "rollout.date"


def with_date(config: Config, model: Path, earlier: str = "") -> Config:
    """The configuration with `rollout.date` set, if the model's chat template writes the date and none is given.

    `earlier`: the day of what is gone on with; "" = today.
    """
    if config.rollout.date:
        return config
    dialogue = open_dialogue(config, str(model))
    if not writes_date(dialogue.tokenizer, dialogue.system):
        return config
    day = earlier or date.today().isoformat()
    log.info("the chat template writes the date: every prompt says %s, also tomorrow (%s)", day, KEY)
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"date": day})})


def date_of_checkpoint(storage: Storage) -> str:
    """The day of the newest checkpoint's run; "" where there is none, or its prompts have no date."""
    storage.prepare()
    for version in reversed(storage.versions(Kind.CHECKPOINT)):
        try:
            identity = storage.stored(Kind.CHECKPOINT, version).json(f"{RUN}/{IDENTITY}")
            return str(identity["settings"].get(KEY, ""))
        except (Damaged, OSError, KeyError):
            continue
    return ""


def date_of_answers(manifests: Iterable[Path]) -> str:
    """The day of an evaluation that is taken up again; "" where none of its manifests has one."""
    for manifest in manifests:
        if manifest.is_file() and (day := json.loads(manifest.read_text("utf-8")).get("dialogue", {}).get("date")):
            return str(day)
    return ""
