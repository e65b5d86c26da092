"""A run's held-out questions on MLflow's page *Datasets*: to be read, and for its own evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calibadv.tracking.data_sets import DataSet
from calibadv.types import Question

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST = 200  # questions of a set: a page shows them all, and the store asks for each whether it has it


def question_set(data: DataSet, questions: Sequence[Question]) -> dict[str, Any]:
    """JSON-ready: of what file they are, and the first `MOST` of them."""
    first = [{"id": each.id, "text": each.text, "answers": list(each.golden_answers)} for each in questions[:MOST]]
    return {"data": data.to_dict(), "asked": len(questions), "questions": first}


def log_questions(client: MlflowClient, experiment_id: str, values: Mapping[str, Any]) -> None:
    """The set as one of the experiment's, once for each digest of the file and number of questions.

    Raises what MLflow raises; NotImplementedError where the store keeps no such sets, as a folder of files.
    """
    data, asked = DataSet(**values["data"]), values["asked"]
    tags = {"digest": data.digest, "asked": str(asked), "source": data.source, "context": data.context}
    there = {dataset.name: dataset for dataset in client.search_datasets(experiment_ids=[experiment_id])}
    records = [_record(each, data.source) for each in values["questions"]]
    asked_of = f", {asked} of {data.rows} asked" if asked < data.rows else ""
    first = f", the first {len(records)}" if len(records) < asked else ""
    name = f"{data.known_as[0]} {data.digest[:8]}{asked_of}{first}"
    dataset = there.get(name) or client.create_dataset(name, [experiment_id], tags)
    if json.loads(dataset.profile or "{}").get("num_records") != len(records):
        # The dataset's own method asks the store of the whole process, which may be another one.
        client._tracking_client.store.upsert_dataset_records(dataset.dataset_id, records)


def _record(question: Mapping[str, Any], source: str) -> dict[str, Any]:
    answers = question["answers"]
    return {
        "inputs": {"question": question["text"]},
        "expectations": {"expected_response": answers[0], "golden_answers": answers},
        "tags": {"question_id": question["id"]},
        "source": {"source_type": "DOCUMENT", "source_data": {"doc_uri": source}},
    }
