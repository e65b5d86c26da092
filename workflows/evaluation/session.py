"""What an evaluation starts besides its engines, and stops: Ray, and one search app for all models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import ray

from calibadv.rllib.stream import Inputs
from calibadv.rollout.protocols import SearchFn
from calibadv.search.client import RetryPolicy
from serve.app import stop_search
from serve.search_client import serve_search
from workflows.evaluation.plan import Plan, pool_cpus
from workflows.session import init_ray, open_search

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
        questions = plan.sets[0].path
        inputs = Inputs(train=questions, test=questions, corpus=plan.corpus, model=plan.models[0].folder)
        open_search(config, inputs, SEARCH_APP)
        policy = RetryPolicy(timeout_s=config.search.timeout_s, attempts=config.search.max_attempts)
        yield partial(serve_search, SEARCH_APP, policy)
