"""Models of MLflow's registry, by the address that MLflow gives them: models:/NAME/VERSION or models:/NAME@ALIAS."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from calibadv.files import once_at_a_time
from calibadv.tracking.database import store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

NEWEST = "newest"  # the alias of the last version
_MAX_CARD = 5000  # characters that a store keeps of a version's description
CACHE = Path(".cache/models")
_FETCHED = re.compile(r".+-\d+-(?P<run>[0-9a-f]{32})")  # the folder of a version in the cache
_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


def is_registered(name: str) -> bool:
    """Whether the name is an address of the registry."""
    return name.startswith("models:/")


def registered_model(address: str, *, uri: str = "", runs: Path = Path("runs"), cache: Path = CACHE) -> Path:
    """The folder of the model of that address, fetched into `cache` once a version.

    The store is $MLFLOW_TRACKING_URI's, else that of `uri`, else the database in `runs`. ValueError for what is no such
    address, for a model that is not registered there, and for a store that does not answer.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(
            f"{address!r} is no model of MLflow's registry: expected models:/NAME/VERSION or models:/NAME@ALIAS"
        )
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    where = os.environ.get("MLFLOW_TRACKING_URI") or uri or store_uri(runs)
    client = MlflowClient(where)
    try:
        if found["alias"]:
            version = client.get_model_version_by_alias(found["name"], found["alias"])
        else:
            version = client.get_model_version(found["name"], found["version"])
        folder = cache / f"{found['name']}-{version.version}-{version.run_id}"
        with once_at_a_time(folder):  # the runs of a study begin together
            if not folder.is_dir():
                # Not by its models:/ address, which MLflow would look up in a registry of its own choice.
                source = client.get_model_version_download_uri(found["name"], version.version)
                with TemporaryDirectory(dir=cache) as draft:  # a fetch that is cut leaves no half model
                    fetched = Path(download_artifacts(artifact_uri=source, dst_path=draft, tracking_uri=where))
                    fetched.rename(folder)
    except MlflowException as error:
        said = str(error).partition("\n")[0]
        raise ValueError(
            f"{address} is not to be had from {where} ({said}): name a registered version, or the store that has it by "
            "--tracking.mlflow_uri or MLFLOW_TRACKING_URI"
        ) from None
    return folder.absolute()


def run_of(folder: Path) -> str | None:
    """The run that made the model in a folder that `registered_model` gave; None for any other folder."""
    found = _FETCHED.fullmatch(folder.name)
    return found["run"] if found else None


def register_version(client: MlflowClient, run_id: str, name: str, card: str) -> None:
    """Makes the run's artifact folder `model` the newest version of the registered model. Raises what MLflow raises."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it is there already; whatever else it is comes again in the next call
        client.create_registered_model(name, description="Search agents trained by calibadv.")
    version = client.create_model_version(name, f"runs:/{run_id}/model", run_id, description=card[:_MAX_CARD])
    client.set_registered_model_alias(name, NEWEST, version.version)
