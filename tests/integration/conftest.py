"""A place for the whole runs of a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from calibadv.pocket import policy_path
from tests.integration.commands import ray_folder
from tests.integration.runs import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("training")
    (base / "runs").mkdir()
    with ray_folder() as ray:
        yield Place(base / "runs", base / "cache", shutil.copytree(policy_path(), base / "policy"), ray)
