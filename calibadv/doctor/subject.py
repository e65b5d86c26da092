"""What is examined: a recipe, and the folder of its model as far as it is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from calibadv.cluster.model_folder import model_here
from calibadv.config import Config
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.memory.plan import ModelSizes, Plan, plan_of
from calibadv.model_source import SMALL_FILES, ModelFolder
from calibadv.pocket import data_file


@dataclass(frozen=True)
class Subject:
    """A recipe under examination. `deep` also starts Ray, and rolls out and updates with a model of any size."""

    config: Config
    deep: bool = False
    given: tuple[str, ...] = ()  # the recipe and the overrides as the command line has them, for commands that follow
    find: Callable[[str, Sequence[str], Config], ModelFolder] = model_here

    @property
    def joins_cluster(self) -> bool:
        """Whether the run joins a cluster that is up, so that this machine need not carry it."""
        return self.config.cluster.address != "local"

    @property
    def model(self) -> ModelFolder:
        """The model's folder. Of a hub model that is not here only the small files are fetched.

        ValueError for what is neither a folder nor a hub name, or cannot be fetched.
        """
        if isinstance(self._model, ValueError):
            raise self._model
        return self._model

    @cached_property
    def _model(self) -> ModelFolder | ValueError:
        try:
            return self.find(self.config.model.path, SMALL_FILES, self.config)
        except ValueError as error:  # kept: nobody waits twice for a hub that does not answer
            return error

    @property
    def with_model(self) -> Config:
        """The recipe with the model's folder for its name, where it was found."""
        return self.config if isinstance(self._model, ValueError) else self._with(self._model.path)

    @cached_property
    def plan(self) -> Plan:
        """What the recipe comes to with the model as it lies here. ValueError as `model`."""
        return plan_of(self._with(self.model.path))

    def _with(self, folder: Path) -> Config:
        found = self.config.model.model_copy(update={"path": str(folder)})
        return self.config.model_copy(update={"model": found})

    @property
    def sizes(self) -> ModelSizes:
        """The sizes in `plan`. ValueError where the model's shape is not known."""
        if self.plan.model is None:
            raise ValueError(self.plan.unknown)
        return self.plan.model

    @cached_property
    def files(self) -> dict[str, Path]:
        """The data files by their keys in the recipe."""
        data, cache = self.config.data, self.config.run.cache
        return {name: data_file(getattr(data, name), name, cache) for name in ("train", "test", "corpus")}


def model(subject: Subject) -> Iterator[Finding]:
    """Whether the model is here, weights and all, and one that the learner can train."""
    found, name = subject.model, subject.config.model.path
    if found.whole:
        yield passed("model", f"{name}: whole")
    else:
        remedy = "fetch it before (`hf download`), on every node: the first run otherwise waits for it"
        yield warned("model", f"{name}: its weights are not on this machine", remedy)
    yield head(found.path)


def head(folder: Path) -> Finding:
    """Whether the learner's log-probs will be the model's own, as far as its code says so without weights."""
    from calibadv.rllib.head import check_architecture

    try:
        check_architecture(str(folder))
    except ValueError as error:
        return failed("head", str(error), "set model.path to another model")
    return passed("head", "the learner makes the model's own logits")
