"""The state of the learners, saved and loaded together: every rank its own part, every rank's answer looked at.

A checkpoint's `shared/` is what all learners hold alike, written by rank 0 and read by all; `rank-<r>/` is what only
that rank has; `model/` is the policy as `from_pretrained` opens it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from calibadv.checkpoints.folders import Draft, Stored
from calibadv.checkpoints.manifest import FileEntry
from calibadv.checkpoints.state_files import STATE, Tree, read_state, write_state
from calibadv.retries import in_words
from calibadv.rllib.learner_group import PolicyLearnerGroup

SHARED, MODEL = "shared", "model"


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; the learners themselves are as they were."""


class StatefulLearner(Protocol):
    """What a learner must offer to be saved. A sharded one puts its shards into `own_state`, and {} into the other.

    All ranks are asked for the same at the same time, so that an answer may be gathered from several.
    """

    @property
    def rank(self) -> int:
        """Its number among the learners."""

    def shared_state(self) -> Tree:
        """What all ranks hold alike; rank 0's answer is the one that is written."""

    def own_state(self) -> Tree:
        """What only this rank has."""

    def load_state(self, shared: Tree, own: Tree | None) -> None:
        """Goes on exactly where the state was taken. `own` is None for a rank that there was not at that time."""

    def roll_back(self, shared: Tree, own: Tree | None, lr_scale: float) -> None:
        """Weights and moments of the state; schedule and generators stay; later learning rates times `lr_scale`."""

    def save_model(self, folder: str) -> None:
        """Writes the policy for `from_pretrained`. Rank 0 writes; with "" it only takes part, as the others do."""

    def all_ranks(self, ready: bool) -> bool:
        """Whether it is so on every rank. Collective."""


def save_learners(learners: PolicyLearnerGroup, draft: Draft, *, model: bool) -> dict[str, FileEntry]:
    """Every learner writes its part of the draft, the policy itself too if `model`; all files that were written.

    Raises `CheckpointFailed` naming each rank that could not, and why.
    """
    answers = learners.call_all(partial(_save, draft=draft, model=model))
    _check(answers, "could not write its part", CheckpointFailed)
    return {file: entry for answer in answers for file, entry in answer.files.items()}


def load_learners(learners: PolicyLearnerGroup, stored: Stored) -> None:
    """Every learner takes up the state in `stored`. ValueError naming each rank that could not, and why."""
    _check(learners.call_all(partial(_load, stored=stored)), f"could not load {stored}", ValueError)


def roll_back_learners(learners: PolicyLearnerGroup, stored: Stored, lr_scale: float) -> None:
    """Every learner goes back to the policy in `stored`. ValueError naming each rank that could not, and why."""
    answers = learners.call_all(partial(_roll_back, stored=stored, lr_scale=lr_scale))
    _check(answers, f"could not go back to {stored}", ValueError)


@dataclass(frozen=True, slots=True)
class _Answer:
    """How it went on one rank."""

    rank: int
    files: dict[str, FileEntry] = field(default_factory=dict)
    error: str = ""


def _check(answers: Sequence[_Answer], what: str, error: type[Exception]) -> None:
    failed = [f"learner {answer.rank} {what} ({answer.error})" for answer in answers if answer.error]
    if failed:
        raise error("; ".join(failed))


def _answered(learner: StatefulLearner, act: Callable[[], dict[str, FileEntry]]) -> _Answer:
    """An error is an answer too: raised, it would hide what the other ranks say."""
    try:
        return _Answer(learner.rank, act())
    except Exception as error:
        return _Answer(learner.rank, error=in_words(error))


def _save(learner: StatefulLearner, draft: Draft, model: bool) -> _Answer:
    gathers = model  # weights may be gathered from all ranks: one that fails before would be waited for

    def save_model(folder: str) -> None:
        nonlocal gathers
        gathers = False
        learner.save_model(folder)

    def act() -> dict[str, FileEntry]:
        try:
            files = draft.add(f"rank-{learner.rank}", partial(write_state, tree=learner.own_state()))
            if learner.rank == 0:
                files |= draft.add(SHARED, partial(write_state, tree=learner.shared_state()))
            if learner.rank == 0 and model:
                files |= draft.add(MODEL, lambda folder: save_model(str(folder)))
        finally:
            if gathers:
                save_model("")
        return files

    return _answered(learner, act)


def _load(learner: StatefulLearner, stored: Stored) -> _Answer:
    return _taken_up(learner, stored, learner.load_state)


def _roll_back(learner: StatefulLearner, stored: Stored, lr_scale: float) -> _Answer:
    return _taken_up(learner, stored, partial(learner.roll_back, lr_scale=lr_scale))


def _taken_up(learner: StatefulLearner, stored: Stored, take_up: Callable[[Tree, Tree | None], None]) -> _Answer:
    """Gives the learner its state once every rank has read its own: some take theirs up together."""

    def act() -> dict[str, FileEntry]:
        states = None
        try:
            states = _states(learner, stored)
        finally:
            whole = learner.all_ranks(states is not None)
        if whole and states is not None:
            take_up(*states)
        return {}

    return _answered(learner, act)


def _states(learner: StatefulLearner, stored: Stored) -> tuple[Tree, Tree | None]:
    own = f"rank-{learner.rank}"
    shared = read_state(stored.reader(SHARED))
    return shared, read_state(stored.reader(own)) if stored.has(f"{own}/{STATE}") else None


def random_state() -> Tree:
    """Python's generator, NumPy's global one, torch's on the CPU and on every GPU this process sees."""
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    inner = numpy_state["state"]
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {"key": [int(word) for word in inner["key"]], "pos": int(inner["pos"])}},
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


def set_random_state(state: Tree) -> None:
    """Takes up where `random_state` was called. GPUs beyond those of then keep their own state."""
    random.setstate(state["python"])
    inner = state["numpy"]["state"]
    np.random.set_state({**state["numpy"], "state": {**inner, "key": np.asarray(inner["key"], dtype=np.uint32)}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, device)
