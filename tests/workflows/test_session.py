"""The names under which a run starts its parts on a Ray that others use too; nothing is started here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calibadv.config import load_config
from calibadv.views.plain import PlainView
from workflows import session


class Asked(Exception):
    """Ends a start where its search is asked for."""


@contextmanager
def joined(*_: object) -> Iterator[bool]:
    yield False


def asked_app(*_: object) -> None:
    raise Asked(_[1])


def test_two_runs_of_one_name_have_two_search_apps_and_one_that_starts_again_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ray_of", joined)
    monkeypatch.setattr(session, "ray", SimpleNamespace(cluster_resources=dict))
    monkeypatch.setattr(session, "create_coordinator", lambda _: None)
    monkeypatch.setattr(session, "search_factory", asked_app)
    inputs: Any = SimpleNamespace(model=tmp_path)

    def app(folder: Path, given: str | None = None) -> str:
        config = load_config(None, {"run.folder": folder})
        with (
            pytest.raises(Asked) as asked,
            PlainView(config.run.steps) as view,
            session.started(config, inputs, view, given),
        ):
            pass
        return str(asked.value)

    assert app(tmp_path / "me") == app(tmp_path / "me") != app(tmp_path / "you")
    assert app(tmp_path / "me", "a study's") == "a study's"
