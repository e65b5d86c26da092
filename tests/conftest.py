"""A Ray of its own for every module that asks for one; modules never share or inherit a cluster."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from functools import partial

import pytest
import ray

os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # Ray's own 30 s are too short for a busy machine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, the longest files come first, so that none is left alone at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name != "integration")


@pytest.fixture(autouse=True)
def _levels_of_our_loggers() -> Iterator[None]:
    """A command sets them for its process: what a later test looks for in the log must not depend on it."""
    loggers = [logging.getLogger(name) for name in ("calibadv", "serve", "workflows", "benchmarks")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    # A short path: Ray's sockets lie below it and their names are limited to about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="cr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        start = partial(
            ray.init,
            address="local",
            num_cpus=4,
            include_dashboard=False,
            _temp_dir=folder,
            object_store_memory=200 * 2**20,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            log_to_driver=False,
        )
        try:
            start()
        except Exception:  # a bare one, where a start takes longer than Ray waits: once more, as a run does
            ray.shutdown()
            start()
        yield
        ray.shutdown()
