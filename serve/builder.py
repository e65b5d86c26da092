"""The search app for `serve run` and `serve deploy`: `serve/search.yaml` names `serve.builder:search_app`."""

from __future__ import annotations

from typing import Any

from ray.serve import Application

from calibadv.search.reading import read_search
from calibadv.search.settings import SearchConfig
from serve.application import search_application


class SearchArgs(SearchConfig):
    """The `args` of the config file: those of `[search]` in a recipe, and where corpus and cache are.

    Paths must be there on every node, absolute for `serve deploy`. Host and port are those of Serve's `http_options`;
    at `http_host` and `http_port` replicas listen themselves. The token is in the environment variable that `token_env`
    names, never here.
    """

    corpus: str
    """A corpus file or store."""
    cache_dir: str = ".cache/search"
    """Where embeddings and indexes are kept."""


def search_app(args: dict[str, Any]) -> Application:
    """The application that the config file describes. `ValueError` with the nearest right key for a wrong one."""
    config = read_search(SearchArgs, args)
    return search_application(config, config.corpus, config.cache_dir)
