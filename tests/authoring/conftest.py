"""The model's server, and a small world that it is asked about."""

from __future__ import annotations

import pytest

from calibadv.types import Document
from tests.authoring.author import author
from tests.rewards.conftest import server
from tests.rewards.judge_server import JudgeServer

__all__ = ["api", "server"]

WORLD = (
    Document("film", "Lost Valley", "A film: director of Lost Valley is Ada Berg, year of Lost Valley is 1971."),
    Document("ada", "Ada Berg", "A person: birthplace of Ada Berg is Redford, spouse of Ada Berg is Ivo Ray."),
    Document("red", "Redford", "A town: county of Redford is Somerset, river of Redford is Severn."),
    Document("few", "Oslo", "town"),
)


@pytest.fixture
def api(server: JudgeServer) -> JudgeServer:
    server.answer = author
    return server
