"""Where a model lies: a folder, or the snapshot of a hub model in the hub's cache; and what may be fetched of it.

One reading of the hub's variables, at the moment of the question. Offline: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is 1,
true, yes or on. The cache: the first that is set of HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, TRANSFORMERS_CACHE,
HF_HOME/hub and XDG_CACHE_HOME/huggingface/hub, or ~/.cache/huggingface/hub.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model")  # all but the weights
ALL_FILES = (*SMALL_FILES, "*.safetensors")
_YES = {"1", "true", "yes", "on"}  # as huggingface_hub reads it


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with a model's configuration and tokenizer, and whether its weights are there too."""

    path: Path
    whole: bool


def find_model(name: str, files: Sequence[str] = ALL_FILES) -> ModelFolder:
    """The model of a folder or a hub name; of a hub model the `files` that are not here are fetched, if they may be.

    ValueError for what is neither, for a folder that holds no model, and for a hub model that is not here and cannot be
    fetched. A whole model in the cache is enough, whatever the hub says.
    """
    cached = local_folder(name, "model.path")
    if Path(name).is_dir():
        assert cached is not None
        return ModelFolder(cached, has_weights(cached))
    if cached is None:
        check_fetchable(name, "model.path")
    elif offline():
        return ModelFolder(cached, has_weights(cached))
    return _fetched(name, files, cached)


def local_folder(name: str, key: str) -> Path | None:
    """The folder that the name is of, or the snapshot of a hub model in the cache; None for one that is not here.

    ValueError, naming the `key`, for what is neither a folder nor a hub name, and for a folder that holds no model.
    """
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ValueError(f"{key} = {name!r} holds no config.json: it is no folder of save_pretrained")
        return Path(name).absolute()
    check_name(name, key)
    return cached_folder(name)


def check_name(name: str, key: str) -> None:
    """ValueError, naming the `key`, for what is no folder and cannot be a hub name either."""
    if not is_hub_name(name):
        raise ValueError(f"{key} = {name!r} is neither a folder nor a hub name like Qwen/Qwen2.5-7B-Instruct")


def check_fetchable(name: str, key: str) -> None:
    """ValueError, naming the `key`, where a hub model that is not in the cache may not be fetched either."""
    if switch := offline():
        raise ValueError(
            f"{key} = {name!r} is no folder here and not in the hub's cache {hub_cache()}, and {switch} "
            f"forbids to fetch it: fetch it where there is a network (`hf download {name}`), or give a folder"
        )


def to_fetch(name: str) -> bool:
    """Whether it is a hub model that is not whole in the cache, and the hub may be asked for it."""
    if Path(name).is_dir() or not is_hub_name(name) or offline():
        return False
    return not in_cache(name)


def in_cache(name: str) -> bool:
    """Whether the hub model is whole in the cache."""
    cached = cached_folder(name)
    return cached is not None and has_weights(cached)


def _fetched(name: str, files: Sequence[str], cached: Path | None) -> ModelFolder:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(files), cache_dir=hub_cache()))
    except Exception as error:  # of the hub, the network, a proxy, the disk
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        if cached is not None and has_weights(cached):
            logger.warning("%s is taken from the hub's cache, for it could not be asked for (%s)", name, why)
            return ModelFolder(cached, whole=True)
        raise ValueError(f"model.path = {name!r} is no folder here and could not be fetched: {why}") from None
    return ModelFolder(folder, has_weights(folder))


def is_hub_name(name: str) -> bool:
    """Whether the name may be one of the hub's, such as Qwen/Qwen2.5-7B-Instruct."""
    return name.count("/") == 1 and ":" not in name and not name.startswith((".", "/", "~")) and not name.endswith("/")


def offline() -> str:
    """The setting that forbids to ask the hub, e.g. "HF_HUB_OFFLINE=1"; "" where it may be asked."""
    named = ((name, os.environ.get(name, "")) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return next((f"{name}={value}" for name, value in named if value.strip().lower() in _YES), "")


def hub_cache() -> Path:
    """The folder of the hub's cache, which need not exist."""
    for name, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("TRANSFORMERS_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if given := os.environ.get(name, "").strip():
            return Path(os.path.expandvars(given)).expanduser().absolute() / below
    return Path(os.path.expanduser("~/.cache/huggingface/hub"))


def cached_folder(name: str) -> Path | None:
    """The snapshot of a hub model in the cache: that of `main`, or the only one; None where there is none."""
    if not is_hub_name(name):
        return None
    stored = hub_cache() / f"models--{name.replace('/', '--')}"
    main, snapshots = stored / "refs" / "main", stored / "snapshots"
    if main.is_file() and (folder := snapshots / main.read_text(encoding="utf-8").strip()).is_dir():
        return folder
    kept = [folder for folder in snapshots.iterdir() if folder.is_dir()] if snapshots.is_dir() else []
    return kept[0] if len(kept) == 1 else None


def loadable(name: str) -> str:
    """What a library opens `name` by: where the hub may not be asked, the folder of a hub model in the cache."""
    cached = cached_folder(name) if offline() and not Path(name).is_dir() else None
    return str(cached or name)


def has_weights(folder: Path) -> bool:
    """Whether every file of weights that the index names is there; without an index, whether there is one."""
    for index in sorted(folder.glob("*.safetensors.index.json")) or sorted(folder.glob("*.bin.index.json")):
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / file).is_file() for file in named)
    # A link of the cache may point to a file that was never fetched.
    return any(path.is_file() for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
