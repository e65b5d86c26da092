"""Where questions come from: a file on this machine, or a data set of FlashRAG's collection on the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.reading import stem_of
from calibadv.model_source import hub_cache, offline

HUB_REPOSITORY = "RUC-NLPIR/FlashRAG_datasets"
_SPLITS = frozenset({"train", "dev", "test", "validation", "valid"})

Download = Callable[..., str]
"""`huggingface_hub.hf_hub_download`: (repo_id, filename, repo_type=…) -> the path of the file here."""


def question_file(source: str, split: str, download: Download | None = None) -> tuple[Path, str]:
    """(file, data set) of `source`: the path of a file, or a name like `hotpotqa`, whose file of `split` is fetched."""
    path = Path(source)
    if path.is_file():
        return path, dataset_of(path)
    if path.is_dir():
        raise DataError(source, "it is a folder", "a question file, or the name of a data set", "Name the file in it.")
    if path.suffix or len(path.parts) != 1:
        raise DataError(
            source,
            "no such file",
            f"a file, or the name of a data set in {HUB_REPOSITORY}",
            "Check the path or the name.",
        )
    return hub_file(source, split, download), source


def dataset_of(path: Path) -> str:
    """The data set of a file: its name, or its folder's where it is called after a split: nq of nq/test.jsonl."""
    stem = stem_of(path)
    return path.absolute().parent.name if stem in _SPLITS else stem


def hub_file(dataset: str, split: str, download: Download | None = None) -> Path:
    """`DATASET/SPLIT.jsonl` of FlashRAG's collection, fetched unless it is in the cache; DataError says why not."""
    place = f"{HUB_REPOSITORY}: {dataset}/{split}.jsonl"
    local = "Fetch it where there is a network and give the file's path"
    fetch: Any = download
    if fetch is None:
        from huggingface_hub import hf_hub_download as fetch
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            fetch(
                HUB_REPOSITORY,
                f"{dataset}/{split}.jsonl",
                repo_type="dataset",
                cache_dir=hub_cache(),
                local_files_only=bool(offline()),
            )
        )
    except LocalEntryNotFoundError as error:  # an EntryNotFoundError too: it is not here, and the hub was not asked
        why = f"{offline()} forbids to fetch it" if offline() else "the hub cannot be reached"
        raise DataError(place, f"it is not in the hub's cache and {why}", "the file or the hub", f"{local}.") from error
    except EntryNotFoundError as error:
        raise DataError(
            place, "the hub has no such file", "a data set and one of its splits", "See --split: train, dev or test."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(
            place,
            f"it could not be fetched ({type(error).__name__}: {why})",
            "the hub's answer",
            f"Try again, or: {local}.",
        ) from error
