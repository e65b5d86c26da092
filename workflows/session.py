"""Everything a run starts, in one context that also stops it: Ray, the search app, the coordinator, the algorithm."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import ray
import transformers

from calibadv.cluster.coordinator import create_coordinator
from calibadv.cluster.gpus import check_room
from calibadv.cluster.job import check_job
from calibadv.cluster.names import app_name
from calibadv.cluster.ray_session import ray_at
from calibadv.cluster.servers import server_in_use
from calibadv.config import Config, role
from calibadv.data.digests import corpus_digest
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.stall import START
from calibadv.rllib.stream import RolloutStream
from calibadv.search.embeddings import embedding_progress
from calibadv.search.recorded import engine_of
from calibadv.training.inputs import Inputs
from calibadv.views.summary import TerminalView
from serve.app import start_search, stop_search
from serve.search_client import engine_factory, search_factory, shared_name
from serve.shared_search import start_shared, take_counts

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's own C++ chatter; what fails is raised in Python
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def started(
    config: Config, inputs: Inputs, view: TerminalView, search_app: str | None = None
) -> Iterator[CalibAdvAlgorithm]:
    """A ready algorithm on a running cluster. On the way out, also after Ctrl-C, what was started here is stopped.

    `search_app` names a search app that is up already, for runs that share one.
    """
    with ExitStack() as stack:
        view.stage("Ray", "the cluster's processes")
        ends = stack.enter_context(ray_of(config, wanted_cpus(config)))
        if ends:
            check_room(config, ray.cluster_resources().get("GPU", 0))
        view.stage_done(f"{ray.cluster_resources().get('CPU', 0):.0f} logical CPUs")

        view.stage("Learner", f"the model {inputs.model.name}; {config.rollout.engines} engines start beside it")
        app = search_app or app_name("search", config.run.folder / config.run_name)
        name = f"coordinator-{config.run_name}"  # of this driver alone: actors have namespaces, apps have none
        coordinator = create_coordinator(name)  # lives as long as this handle
        search = search_factory(config.search, app)
        stream = RolloutStream(
            config,
            inputs.method,
            inputs.model,
            inputs.train_questions,
            inputs.test_questions,
            search,
            name,
            inputs.start,
            search_counts=partial(take_counts, shared_name(app)) if config.search.together else dict,
        )
        algorithm = CalibAdvConfig(CalibAdvAlgorithm).of_run(stream).build_algo()
        stack.callback(_quietly, algorithm.stop)
        view.follow(algorithm.stall.now)
        learners = config.learner.learners
        view.stage_done(f"{learners or 'one local'} learner{'s' if learners > 1 else ''}")

        where = f"{config.search.retriever} index of {inputs.corpus.name}, reranker {config.search.reranker}"
        view.stage("Search", server_in_use(config) or where)
        if search_app is None:
            embedded = partial(embedding_progress, config.run.cache / "search")
            with algorithm.waiting("the search app's start", progress=embedded, patience=START):
                stack.enter_context(served_search(config, inputs.corpus, app, stop=not ends))
        view.stage_done(f"top {config.search.top_k_retrieve}, reranked to {config.search.top_k}")

        algorithm.publish()
        yield algorithm
        del coordinator


@contextmanager
def served_search(config: Config, corpus: Path, name: str, *, stop: bool) -> Iterator[None]:
    """The search app `name` over the corpus, which answers, and the process through which all engines ask it.

    Neither where the settings do without. `stop` it afterwards, unless it ends with its Ray.
    """
    search = config.search
    with ExitStack() as stack:
        if not search.elsewhere:
            if stop:
                stack.callback(stop_search, name)
            on = role(config.cluster.search_on)
            start_search(search, corpus, config.run.cache / "search", name, resources=on)
        asking = None
        if search.together:
            digest = corpus_digest(corpus) if search.ledger and not search.elsewhere else ""
            asking = start_shared(search, engine_factory(search, name), engine_of(search, digest), shared_name(name))
        yield
        del asking  # the process lived as long as its handle


@contextmanager
def ray_of(config: Config, wanted: float) -> Iterator[bool]:
    """The Ray that `ray_at` finds for the configuration; a new one has at least `wanted` logical CPUs.

    Yields whether it ends with the context. ValueError in a job that would start one of its own.
    """
    if not ray.is_initialized():
        check_job(config)
        _quieten()
    cluster, on_sigterm = config.cluster, signal.getsignal(signal.SIGTERM)
    cpus = cluster.logical_cpus or max(os.cpu_count() or 1, math.ceil(wanted))
    local = {"num_cpus": cpus, "logging_level": logging.ERROR}
    with ray_at(cluster.address, setting="cluster.address", **local) as ends:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has set its own, which ends the process with nothing saved
        yield ends


def _quieten() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray.serve", "ray.data", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()


def wanted_cpus(config: Config) -> float:
    """Logical CPUs of one run: those of an evaluation, and its learners."""
    return pool_cpus(config) + config.learner.learners


def pool_cpus(config: Config) -> float:
    """Logical CPUs of an evaluation: engines, search replicas, Serve's controller and Ray Data's tasks."""
    engines = config.rollout.engines * config.cluster.cpus_per_engine
    return engines + config.search.replicas * config.search.num_cpus + 2


def serving_cpus(config: Config) -> float:
    """Logical CPUs of a served agent: engines, search replicas, and Serve's own processes."""
    engines = max(config.serve.replicas, config.serve.max_replicas)
    return engines * config.cluster.cpus_per_engine + config.search.replicas * config.search.num_cpus + 2


def _quietly(stop: Callable[[], None]) -> None:
    """Stops what may be half dead already: an error here must not hide the one that ended the run."""
    try:
        stop()
    except Exception as error:
        logging.getLogger(__name__).warning("while stopping: %s", error)
