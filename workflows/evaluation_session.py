"""What an evaluation starts besides its engines, and stops: Ray, and one search app for all models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import ray

from calibadv.evaluation.plan import Plan
from calibadv.rollout.protocols import SearchFn
from serve.app import stop_search
from serve.search_client import search_factory
from workflows.session import init_ray, open_search, pool_cpus

SEARCH_APP = "search-evaluation"


@contextmanager
def searching(plan: Plan) -> Iterator[Callable[[], SearchFn]]:
    """A factory of search tools for the engines, over an app that answers. Inside a running Ray, that one is used."""
    config = plan.models[0].config
    joined = ray.is_initialized()
    with ExitStack() as stack:
        if not joined:
            init_ray(config, max(pool_cpus(model.config) for model in plan.models))
            stack.callback(ray.shutdown)
        if joined or config.cluster.address != "local":  # a local cluster is stopped whole
            stack.callback(stop_search, SEARCH_APP)
        open_search(config, plan.corpus, SEARCH_APP)
        yield search_factory(config.search, SEARCH_APP)
