"""Places come back once, however they are left."""

from __future__ import annotations

import pytest

from serve.agent.news import Busy
from serve.agent.places import Places


def test_a_place_comes_back_once_after_an_error_and_when_it_is_forgotten() -> None:
    places = Places(2)
    first, forgotten = places.take(), places.take()
    with pytest.raises(Busy, match="2 questions are being answered"):
        places.take()
    with pytest.raises(KeyError), first:
        raise KeyError
    first.leave()
    assert places.taken == 1
    del forgotten
    assert places.taken == 0
