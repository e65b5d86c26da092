"""What an evaluation's answers depend on: kept beside them, so that answers of two kinds never share a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibadv.checkpoints.identity import changed
from calibadv.config import Config
from calibadv.config.rollout import RolloutConfig
from calibadv.data.digests import questions_digest
from calibadv.evaluation.models import DIALOGUE, EvaluatedModel
from calibadv.files import write_text
from calibadv.json_lines import json_value
from calibadv.rollout.tools import KEY, ToolConfig
from calibadv.search.settings import SearchConfig
from calibadv.section import Decides
from calibadv.tracking.run_files import PREDICTIONS
from calibadv.types import Question
from calibadv.user_code import digest

MANIFEST = "manifest.json"
Identity = dict[str, dict[str, Any]]
"""Part (model, set, corpus, search, dialogue, engine) -> its values."""

# Left out at their defaults, so that answers of an earlier release can be gone on with.
_SINCE = (
    *("system", "date", "dialogue", "template_arguments", "tools"),
    *("tokens", "max_tokens", "max_query_chars", "tool", "http", "sql", "mcp"),
    *("hnsw_links", "hnsw_build", "hnsw_search", "ivf_lists", "ivf_probes", "pq_bytes"),
)
_REMEDY = "give another --out, or delete that folder to ask anew"


def identity(model: EvaluatedModel, model_digest: str, questions: Sequence[Question], corpus_digest: str) -> Identity:
    """Everything that an answer of the model to a question of the set depends on."""
    config = model.config
    return {
        "model": {"files": model_digest},
        "set": {"questions": len(questions), "content": questions_digest(questions)},
        "corpus": {"content": corpus_digest},
        "search": search_identity(config) | _code(config.search.tool, "search.tool"),
        "dialogue": {
            "prefill": config.method.made.prefill,
            **_dialogue(config),
        },
        "engine": {
            "name": config.rollout.engine,
            "dtype": config.rollout.torch_dtype if config.rollout.engine == "torch" else config.model.dtype,
        },
    }


def search_identity(config: Config) -> dict[str, Any]:
    """The search settings that decide which documents come back."""
    values: dict[str, Any] = config.search.model_dump(mode="json", exclude=set(SearchConfig.deciding(Decides.MEANS)))
    defaults = SearchConfig().model_dump(mode="json")
    return {name: value for name, value in values.items() if name not in _SINCE or value != defaults[name]}


def _dialogue(config: Config) -> dict[str, Any]:
    means = set(ToolConfig.deciding(Decides.MEANS))
    values, defaults = (
        each.model_dump(mode="json", include=set(DIALOGUE)) for each in (config.rollout, RolloutConfig())
    )
    values["tools"] = [
        tool.model_dump(mode="json", exclude=means) | _code(tool.function, KEY) for tool in config.rollout.tools
    ]
    return {name: values[name] for name in DIALOGUE if name not in _SINCE or values[name] != defaults[name]}


def _code(reference: str, key: str) -> dict[str, str]:
    return {"code": digest(reference, key)} if reference else {}


def keep_identity(folder: Path, wanted: Identity, about: Mapping[str, str]) -> None:
    """Write the manifest of a folder of answers, or check the one that is there.

    `about` is for people and is not compared. ValueError where the folder's answers depend on something else, naming
    every difference.
    """
    path = folder / MANIFEST
    if path.is_file():
        there: Identity = _read(path)
        different = _differences(there, wanted)
        if different:
            raise ValueError(f"{folder} holds another evaluation: {'; '.join(different)}. {_REMEDY.capitalize()}")
        return
    if (folder / PREDICTIONS).exists():
        raise ValueError(f"{folder} holds answers but no {MANIFEST} that says of what: {_REMEDY}")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**wanted, "about": dict(about)}, indent=1, ensure_ascii=False) + "\n")


def check_comparable(folder: Path, wanted: Identity, set_name: str) -> None:
    """Check that the answers below `folder` may stand in one table with those of `wanted`.

    All models answer under one corpus and one search, and a set's name means the same questions for all. ValueError
    naming what differs.
    """
    for path in sorted(folder.glob(f"*/*/{MANIFEST}")):
        there = _read(path)
        parts = ["corpus", "search", *(["set"] if path.parent.name == set_name else [])]
        different = _differences({p: there.get(p, {}) for p in parts}, {p: wanted[p] for p in parts})
        if different:
            raise ValueError(
                f"{path.parent} cannot share a table with set {set_name!r}: {'; '.join(different)}. "
                f"{_REMEDY.capitalize()}"
            )


def _differences(there: Identity, wanted: Identity) -> list[str]:
    known = {
        f"{part}.{name}": value for part, values in there.items() if part != "about" for name, value in values.items()
    }
    asked = {f"{part}.{name}": value for part, values in wanted.items() for name, value in values.items()}
    return [
        changed(name, known.get(name), asked.get(name))
        for name in dict.fromkeys([*known, *asked])
        if known.get(name) != asked.get(name)
    ]


def _read(path: Path) -> Identity:
    try:
        values: Identity = json_value(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): {_REMEDY}") from None
    return values
