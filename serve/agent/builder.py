"""The agent for `serve run` and `serve deploy`: `serve/agent.yaml` names both of its applications here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from calibadv.evaluation.models import EvaluatedModel, find_models
from calibadv.training.inputs import corpus_file
from serve.agent.application import agent_application
from serve.application import search_application
from serve.search_client import search_factory


class AgentArgs(BaseModel):
    """The `args` of the config file, the same for both applications, so that both read one configuration."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    """A run's folder, a model's folder or a hub name; absolute for `serve deploy`."""
    recipe: Path | None = None
    """Needed for a model that none of our runs made."""
    overrides: dict[str, Any] = {}
    """Configuration keys by their dotted names, e.g. serve.port."""
    search_app: str = "search"
    """The name of the search application."""


def agent_app(args: dict[str, Any]) -> Application:
    """The engines and the API."""
    given = AgentArgs.model_validate(args)
    model = _model(given)
    search = search_factory(model.config.search, given.search_app)
    return agent_application(model.config, model.name, model.folder, search)


def search_app(args: dict[str, Any]) -> Application:
    """The search that the agent was trained with. ValueError where its run searched elsewhere: then it needs none."""
    config = _model(AgentArgs.model_validate(args)).config
    if config.search.elsewhere or config.search.together:
        raise ValueError(
            "this agent searches by a server, a function or a ledger of its own: leave the application `search` out, "
            "or serve it with workflows/serve_agent.py"
        )
    return search_application(config.search, corpus_file(config), config.run.cache / "search")


def _model(given: AgentArgs) -> EvaluatedModel:
    (model,) = find_models([given.model], given.recipe, given.overrides)
    return model
