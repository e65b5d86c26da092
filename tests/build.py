"""Builders of the core types for tests: short, and only what a test is about has to be named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibadv.config import Config, load_config
from calibadv.config.command_line import split
from calibadv.types import FloatArray, Group, Question, Trajectory, Turn, TurnKind
from workflows.shipped import RECIPES

QUESTION = Question("test/q", "who?", ("Ada",))


def turn(
    length: int = 2,
    *,
    kind: TurnKind = TurnKind.SEARCH,
    docs: Sequence[str] = (),
    observation: int = 3,
    text: str = "",
    first_id: int = 10,
    logprob: float = -1.0,
) -> Turn:
    """A turn of `length` action tokens with ids first_id, first_id + 1, …"""
    return Turn(
        kind=kind,
        action_ids=np.arange(first_id, first_id + length, dtype=np.int64),
        logprobs=np.full(length, logprob, dtype=np.float32),
        observation_ids=np.full(observation if kind is TurnKind.SEARCH else 0, 5, dtype=np.int64),
        text=text,
        query="q" if kind is TurnKind.SEARCH else None,
        doc_ids=tuple(docs),
    )


def trajectory(
    reward: float,
    lengths: Sequence[int],
    docs: Sequence[Sequence[str]] = (),
    *,
    format_reward: float = 1.0,
    texts: Sequence[str] = (),
    logprob: float = -1.0,
) -> Trajectory:
    """Searches of the given token lengths, the last one an answer; `docs` and `texts` are those of each turn."""
    last = len(lengths) - 1
    turns = tuple(
        turn(
            length,
            kind=TurnKind.ANSWER if i == last else TurnKind.SEARCH,
            docs=docs[i] if i < len(docs) else (),
            text=texts[i] if i < len(texts) else "",
            logprob=logprob,
        )
        for i, length in enumerate(lengths)
    )
    return Trajectory(
        prompt_ids=np.arange(4, dtype=np.int64),
        turns=turns,
        answer="Ada",
        answer_reward=reward,
        format_reward=format_reward,
        reward=reward * format_reward,
    )


def group(*trajectories: Trajectory, question: Question = QUESTION) -> Group:
    return Group(question, trajectories)


def row(*values: float) -> FloatArray:
    """Numbers [N] of tokens."""
    return np.asarray(values, dtype=np.float32)


def jsonl(path: Path, *records: Any) -> Path:
    """The file, a record a line, written with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def configured(*overrides: str) -> Config:
    """The defaults, with the values of `--section.key=value` in them."""
    return load_config(None, overrides_of(*overrides))


def recipe(name: str, *overrides: str) -> Config:
    """A shipped recipe, with the values of `--section.key=value` in it."""
    return load_config(RECIPES / f"{name}.toml", overrides_of(*overrides))


def overrides_of(*arguments: str) -> dict[str, Any]:
    """The values of `--section.key value`, as a command reads them."""
    own, values = split(arguments)
    assert own == []
    return values


def peak_bytes() -> int:
    """Bytes of the largest resident memory of this process so far, on Linux.

    Not getrusage's `ru_maxrss`: that begins at the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text("utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
