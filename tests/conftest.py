"""The order of the tests, and one Ray for all modules that ask for it one after another."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import ray
import sqlalchemy

from calibadv.cluster.ending import end_ray
from calibadv.cluster.local_ray import init_local_ray

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# Ray's own is 15, with which its workers have a thirtieth of a core beside whatever else runs here: the other half of
# the tests, say. Then every limit is too short.
os.environ.setdefault("RAY_worker_niceness", "0")

# Modules and collected tests are no garbage: looking through them for it is a third of the time that collecting takes.
gc.disable()


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _no_waiting_for_the_disk(connection: object, _record: object) -> None:
    """A new MLflow database has a hundred changes, for each of which SQLite waits: 5 of its 6 seconds.

    What it waits for outlives a machine without power; what is committed outlives a killed process anyway.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


# An example that takes longer than Hypothesis' own 0.2 s fails nothing: the machine was busy.
hypothesis.settings.register_profile("any-speed", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("any-speed")

TESTS = Path(__file__).parent
# The longest first, so that where several processes share the tests none is left with one of these at the end; of them
# those that start a Ray of their own, so that the shared one, once it is up, is not ended for them.
LONGEST = [
    TESTS / "integration" / f"test_{name}.py"
    for name in ("compare", "ray_job", "ray_up", "training", "methods", "resume", "extend")
]
CPUS = 4
WITH_RAY = pytest.StashKey[set[Path]]()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and no data of the folder the tests happen to run in."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files, then those that share a Ray, those that end it last, then all others."""
    assert [path for path in LONGEST if not path.is_file()] == []
    with_ray, ending = (
        {item.path for item in items if fixture in getattr(item, "fixturenames", ())}
        for fixture in ("local_ray", "no_ray")
    )
    config.stash[WITH_RAY] = with_ray

    def place(item: pytest.Item) -> tuple[int, bool, bool]:
        longest = LONGEST.index(item.path) if item.path in LONGEST else len(LONGEST)
        return longest, item.path not in with_ray, item.path in ending

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """Files dealt to processes, where a test that ended its process has failed.

    xdist's own gives such a test to the next process too: one that hangs would end all that may be started.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling
    from xdist.workermanage import WorkerController

    class OnceEach(LoadFileScheduling):
        def remove_node(self, node: WorkerController) -> str | None:
            files = self.assigned_work[node]
            left = [(tests, test) for tests in files.values() for test, done in tests.items() if not done]
            for tests, test in left[:1]:  # the one that ran
                tests[test] = True
            self.assigned_work[node] = {file: tests for file, tests in files.items() if not all(tests.values())}
            super().remove_node(node)
            return left[0][1] if left else None

    return OnceEach(config, log)


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, and only in what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _levels_of_our_loggers() -> Iterator[None]:
    """A command sets them for its process: what a later test looks for in the log must not depend on it."""
    loggers = [logging.getLogger(name) for name in ("calibadv", "serve", "workflows", "benchmarks")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def _seldom_garbage() -> Callable[[], None]:
    """What a worker of the shared Ray begins with, half of whose time is the imports of an engine or a learner.

    A function within a function travels as a value: a worker may not find the tests.
    """

    def hook() -> None:
        gc.set_threshold(100_000, 20, 100)

    return hook


class SharedRay:
    """A Ray for the modules that ask for one, in a folder of its own."""

    folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        # A short path: Ray's sockets lie below it and their names are limited to about 100 bytes.
        self.folder = tempfile.TemporaryDirectory(prefix="cr", dir="/tmp", ignore_cleanup_errors=True)
        init_local_ray(
            num_cpus=CPUS,
            _temp_dir=self.folder.name,
            object_store_memory=200 * 2**20,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}, "worker_process_setup_hook": _seldom_garbage()},
            log_to_driver=False,
        )

    def free(self) -> bool:
        """Whether it runs and nothing holds a CPU: the actors of the module before have some seconds to go."""
        deadline = time.monotonic() + 10
        while self.folder is not None and time.monotonic() < deadline:
            if ray.available_resources().get("CPU", 0) == CPUS:
                return True
            time.sleep(0.2)
        return False

    def end(self) -> None:
        if self.folder is not None:
            end_ray()
            self.folder.cleanup()
            self.folder = None


SHARED = SharedRay()


@pytest.fixture(scope="module")
def local_ray() -> None:
    """A Ray in which nothing holds a CPU. The next module that asks for one gets the same."""
    if not SHARED.free():
        SHARED.end()
        SHARED.start()


@pytest.fixture
def no_ray() -> None:
    """No Ray in this process, whatever other tests of the module asked for."""
    SHARED.end()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """No module that does not ask for a Ray finds one."""
    if nextitem is None or nextitem.path not in item.config.stash[WITH_RAY]:
        SHARED.end()
