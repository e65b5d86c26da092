"""Where checkpoints may lie."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture(params=["run folder", "object store"])
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """`checkpoint.uri` of the run folder, and of an object store."""
    yield "" if request.param == "run folder" else f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").store.clear()
