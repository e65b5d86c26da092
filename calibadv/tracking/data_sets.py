"""What a run was made from, as MLflow's data sets: its pages list and compare runs by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_NAME, _MAX_DIGEST = 500, 36  # characters, MLflow's limits


@dataclass(frozen=True, slots=True)
class DataSet:
    """One file, or prepared store, of a run's data."""

    name: str
    digest: str  # of its content (calibadv/data/digests.py): by it and the name MLflow tells data sets apart
    context: str  # what the run does with it: train, test or corpus
    rows: int  # questions or documents in it
    source: str  # where it lies

    @property
    def known_as(self) -> tuple[str, str]:
        """Name and digest as MLflow keeps them."""
        return self.name[:_MAX_NAME], self.digest[:_MAX_DIGEST]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; the fields are those of the class."""
        return asdict(self)


def log_inputs(client: MlflowClient, run_id: str, data: Iterable[Mapping[str, Any]]) -> None:
    """Names the data sets, as `DataSet.to_dict` wrote them, as inputs of the run. Done twice, it is the same.

    Raises what MLflow raises.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    inputs = []
    for values in data:
        given = DataSet(**values)
        name, digest = given.known_as
        source, profile = json.dumps({"uri": given.source}), json.dumps({"num_rows": given.rows})
        dataset = Dataset(name, digest, "local", source, profile=profile)
        inputs.append(DatasetInput(dataset, tags=[InputTag(MLFLOW_DATASET_CONTEXT, given.context)]))
    client.log_inputs(run_id, inputs)
