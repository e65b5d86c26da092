"""What MLflow draws first: a saved view of an experiment's runs, as MLflow's page keeps those in the experiment's tags.

Without it the page draws every metric, in alphabetical order, and the held-out questions come after the advantages.
"""

from __future__ import annotations

import json
from typing import Any

_KEY = "calibadv"  # of the view, in the tag's name and in the page's address
VIEW = f"mlflow.sharedViewState.{_KEY}"  # the tag
_SECTIONS = {
    "Held-out questions": ("eval/f1", "eval/em", "eval/searches"),
    "Training": ("reward/mean", "policy/entropy", "silver/score_mean"),
    "Overview": ("overview",),
}


def first_page(base: str, experiment_id: str, *, view: bool = True) -> str:
    """The address of an experiment's runs, drawn: MLflow's own first page is one for applications, and empty here.

    `view`: as in `first_charts`, which the experiment must have.
    """
    runs = f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    return f"{runs}&viewStateShareKey={_KEY}" if view else runs


def first_charts() -> str:
    """The view: MLflow's own names, of 3.17.2; a page of another release that does not know them shows its own."""
    charts = [_chart(section, name) for section, names in _SECTIONS.items() for name in names]
    sections = [{"uuid": name, "name": name, "display": True, "isReordered": False} for name in _SECTIONS]
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": ["attributes.`Source`", "attributes.`Models`", "attributes.`Dataset`"],
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    return json.dumps(state, separators=(",", ":"))


def _chart(section: str, name: str) -> dict[str, Any]:
    of = {"uuid": name, "metricSectionId": section, "runsCountToCompare": 10}
    if "/" not in name:
        return {**of, "type": "IMAGE", "imageKeys": [name], "step": 0, "showRunParams": False}
    return {**of, "type": "LINE", "metricKey": name, "xAxisKey": "step", "yAxisKey": "metric", "lineSmoothness": 0}
