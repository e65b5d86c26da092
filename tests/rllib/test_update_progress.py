"""What a learner tells the board of its update."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from calibadv.rllib import update_progress
from calibadv.rllib.update_progress import UpdateProgress


def test_it_tells_the_begin_and_then_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    learned = SimpleNamespace(remote=lambda done, of: told.append((done, of)))
    monkeypatch.setattr(update_progress, "find_board", lambda _: SimpleNamespace(learned=learned))
    monkeypatch.setattr(update_progress.ray, "is_initialized", lambda: True)
    now_s = 10.0
    progress = UpdateProgress("board", clock=lambda: now_s)
    progress.begin(40)
    for _ in range(10):  # 0.3 s each
        now_s += 0.3
        progress.step()
    assert told == [(0, 40), (4, 40), (8, 40)]
    progress.begin(5)
    assert told[-1] == (0, 5)


def test_without_a_board_it_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> Any:
        raise ValueError("no policy board")

    monkeypatch.setattr(update_progress, "find_board", none)
    monkeypatch.setattr(update_progress.ray, "is_initialized", lambda: True)
    progress = UpdateProgress("board")
    progress.begin(2)
    progress.step()
    assert (progress.done, progress.of) == (1, 2)
