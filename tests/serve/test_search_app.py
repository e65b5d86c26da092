"""An app that is started while another driver ends Serve. Nothing of Ray is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from serve.app import run_app


def test_an_app_is_deployed_again_where_another_driver_has_just_ended_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Exception] = [ActorDiedError()]
    calls: list[str] = []

    def run(_: object, **given: Any) -> None:
        calls.append(given["name"])
        if ended:
            raise ended.pop()

    monkeypatch.setattr("serve.app.serve", SimpleNamespace(start=lambda **_: calls.append("start"), run=run))
    target: Any = None
    run_app(target, "mine")
    assert calls == ["start", "mine", "start", "mine"]
    ended += [ActorDiedError(), ActorDiedError()]
    with pytest.raises(ActorDiedError):
        run_app(target, "mine")
