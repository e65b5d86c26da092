"""Whole groups as files, a step each: what credit is assigned on, so that any method can assign it again.

groups/step-000007.jsonl.gz: a line that says what trained, a line a document, a line a group. Of tokens there is their
number, and the ids of what a turn read (GiGPO compares them); the ids that were sampled are not kept, nor prompts.
S turns of a trajectory.
"""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from calibadv.files import write_bytes
from calibadv.json_lines import json_line, json_objects
from calibadv.tracking.run_files import GROUPS
from calibadv.types import CalledTool, Document, Group, Question, TokenUnit, Trajectory, Turn, TurnKind

log = logging.getLogger(__name__)

FORMAT = 1
_FILE = re.compile(r"step-(\d{6})\.jsonl\.gz")
# Written as they are and read back as they are; what else a trajectory has is written by itself.
_PLAIN = [field.name for field in fields(Trajectory) if field.name not in ("prompt_ids", "turns")]


class GroupsError(ValueError):
    """A folder has no stored groups, or they are of a format that this version does not read."""


@dataclass(frozen=True, slots=True)
class StoredStep:
    """The groups of one training step, as far as they were kept."""

    step: int  # the policy version that sampled them
    method: str
    params: Mapping[str, Any]
    groups: tuple[Group, ...]
    trained: tuple[list[list[float]], ...]  # of each group its turns' mean advantages as they trained, rows [S]
    documents: Mapping[str, Document]  # all that they retrieved, by id


def write_groups(folder: Path, stored: StoredStep, *, limit_mb: float) -> None:
    """Writes the step's file in one move. A full disk raises nothing.

    Where the folder has grown above `limit_mb`, every second step of it is dropped: the rest still spans the run.
    """
    lines: list[dict[str, Any]] = [
        {"format": FORMAT, "step": stored.step, "method": stored.method, "params": dict(stored.params)},
        *({"document": asdict(document)} for document in stored.documents.values()),
        *(_group_line(group, trained) for group, trained in zip(stored.groups, stored.trained, strict=True)),
    ]
    try:
        folder.mkdir(exist_ok=True)
        content = gzip.compress("".join(map(json_line, lines)).encode(), compresslevel=4, mtime=0)
        write_bytes(folder / f"step-{stored.step:06}.jsonl.gz", content)
    except OSError as error:
        log.warning("the groups of step %d cannot be written to %s: %s", stored.step, folder, error)
        return
    files = stored_steps(folder)
    if sum(path.stat().st_size for path in files.values()) > limit_mb * 1e6:
        log.warning("%s is above tracking.groups_mb = %g: every second step of it is dropped", folder, limit_mb)
        for path in list(files.values())[1::2]:
            path.unlink()


def stored_steps(folder: Path) -> dict[int, Path]:
    """The files of a folder of groups by their step, first to last; {} where there is none."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := _FILE.fullmatch(path.name))}
    return dict(sorted(found.items()))


def forget_groups(folder: Path, since: int) -> None:
    """Removes the steps from `since` on: a run that goes on makes them again."""
    for step, path in stored_steps(folder).items():
        if step >= since:
            path.unlink()


def read_groups(run_folder: Path, steps: Sequence[int] = ()) -> Iterator[StoredStep]:
    """The stored steps of a run, one after the other: all, or those asked for.

    `GroupsError` where the run has none, where it has not the one asked for, or where they are of another format.
    """
    files = stored_steps(run_folder / GROUPS)
    if not files:
        raise GroupsError(
            f"{run_folder} has no stored groups: it is no run, or was made with tracking.store_groups = 'none', with "
            "tracking.sampled_rollouts = 0, or by a version that kept none (its rollouts.jsonl lacks gold data, nodes "
            "and observations)"
        )
    for step in steps:
        if step not in files:
            raise GroupsError(f"{run_folder} has no groups of step {step}; it has {', '.join(map(str, files))}")
    for path in [files[step] for step in steps] or files.values():
        yield _read(path)


def _read(path: Path) -> StoredStep:
    try:
        head, *lines = json_objects(gzip.decompress(path.read_bytes()), path)
    except (OSError, EOFError, ValueError) as error:
        raise GroupsError(f"{path} cannot be read: {error}") from None
    if head.get("format") != FORMAT:
        raise GroupsError(f"{path} is of format {head.get('format')!r}, this version reads {FORMAT}")
    documents = [Document(**line["document"]) for line in lines if "document" in line]
    groups = [line for line in lines if "question" in line]
    return StoredStep(
        head["step"],
        head["method"],
        head["params"],
        tuple(map(_group, groups)),
        tuple([turns["trained"] for turns in line["trajectories"]] for line in groups),
        {document.id: document for document in documents},
    )


def _group_line(group: Group, trained: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {
        "question": asdict(group.question),
        "trajectories": [
            {
                **{name: getattr(trajectory, name) for name in _PLAIN},
                "reward_parts": dict(trajectory.reward_parts),
                "prompt_tokens": len(trajectory.prompt_ids),
                "turns": [_turn_line(turn) for turn in trajectory.turns],
                "trained": [round(float(value), 7) for value in row_S],
            }
            for trajectory, row_S in zip(group.trajectories, trained, strict=True)
        ],
    }


def _turn_line(turn: Turn) -> dict[str, Any]:
    plain = {field.name: getattr(turn, field.name) for field in fields(Turn)}
    del plain["action_ids"], plain["logprobs"]
    return plain | {
        "tokens": len(turn.action_ids),
        "logprob": round(float(turn.logprobs.sum(dtype=np.float64)), 5),
        "observation_ids": turn.observation_ids.tolist(),
        "called": [asdict(call) for call in turn.called],
    }


def _group(line: Mapping[str, Any]) -> Group:
    given = line["question"]
    tuples = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    question = Question(**{**given, **tuples, "tokens": TokenUnit(given["tokens"])})
    return Group(question, tuple(map(_trajectory, line["trajectories"])))


def _trajectory(line: Mapping[str, Any]) -> Trajectory:
    plain = {name: line[name] for name in _PLAIN}
    return Trajectory(np.zeros(line["prompt_tokens"], dtype=np.int64), tuple(map(_turn, line["turns"])), **plain)


def _turn(line: Mapping[str, Any]) -> Turn:
    plain = dict(line)
    tokens, logprob = plain.pop("tokens"), plain.pop("logprob")
    plain.pop("calls", None)  # of runs that kept no more than their number
    span = plain["answer_span"]
    return Turn(
        **{
            **plain,
            "kind": TurnKind(plain["kind"]),
            "action_ids": np.zeros(tokens, dtype=np.int64),
            "logprobs": np.full(tokens, logprob / max(tokens, 1), dtype=np.float32),
            "observation_ids": np.array(plain["observation_ids"], dtype=np.int64),
            "doc_ids": tuple(plain["doc_ids"]),
            "called": tuple(CalledTool(**call) for call in plain.get("called", ())),
            "answer_span": None if span is None else (span[0], span[1]),
        }
    )
