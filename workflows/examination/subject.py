"""What is examined: a recipe, and the folder of its model as far as it is on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from calibadv.config import POCKET, Config
from calibadv.data.pocket import PocketPaths, policy_path, write_pocket_world
from workflows.examination.finding import Finding, passed, warned

_SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model")  # of a hub model: all but its weights


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model's configuration and tokenizer, and whether its weights are there too."""

    path: Path
    whole: bool


@dataclass(frozen=True)
class Subject:
    """A recipe under examination. `deep` also starts Ray, and rolls out and updates with a model of any size."""

    config: Config
    deep: bool = False

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
            return find_model(self.config.model.path)
        except ValueError as error:  # kept: nobody waits twice for a hub that does not answer
            return error

    @cached_property
    def files(self) -> dict[str, Path]:
        """The data files by their keys in the recipe; those of the pocket world are written to the cache first."""
        given = {name: getattr(self.config.data, name) for name in ("train", "test", "corpus")}
        pocket = write_pocket_world(self.config.run.cache / "pocket") if POCKET in given.values() else None
        return dict(_paths(given, pocket))


def _paths(given: dict[str, str], pocket: PocketPaths | None) -> Iterator[tuple[str, Path]]:
    for name, path in given.items():
        yield name, getattr(pocket, name) if path == POCKET and pocket else Path(path).absolute()


def model(subject: Subject) -> Iterator[Finding]:
    """Whether the model is here, weights and all."""
    found, name = subject.model, subject.config.model.path
    if found.whole:
        yield passed("model", f"{name}: whole")
    else:
        remedy = "fetch it before (`hf download`), on every node: the first run otherwise waits for it"
        yield warned("model", f"{name}: its weights are not on this machine", remedy)


def find_model(name: str) -> ModelFolder:
    """The pocket policy, a local folder, or a hub model as far as it is here; see `Subject.model`."""
    if name == POCKET:
        return ModelFolder(policy_path(), whole=True)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ValueError(f"model.path = {name!r} holds no config.json: it is no folder of save_pretrained")
        return ModelFolder(Path(name).absolute(), whole=any(Path(name).glob("*.safetensors")))
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ValueError(f"model.path = {name!r} is neither a folder nor a hub name like Qwen/Qwen2.5-7B-Instruct")
    return _of_hub(name)


def _of_hub(name: str) -> ModelFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_SMALL_FILES), local_files_only=offline))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = "HF_HUB_OFFLINE=1 forbids to fetch it" if offline else f"it could not be fetched: {error}"
        raise ValueError(f"model.path = {name!r} is no folder here, and {why}") from None
    return ModelFolder(folder, whole=_has_weights(folder))


def _has_weights(folder: Path) -> bool:
    """Whether every file of weights that the index names is there; without an index, whether there is one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / file).is_file() for file in named)
