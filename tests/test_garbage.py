"""What is loaded inside is not looked through, and the collector is afterwards as it was."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from calibadv.garbage import uncollected


class Node:
    """An object that holds itself: only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def thawed() -> Iterator[None]:
    """Nothing is frozen, as it is (tests/conftest.py) before and after."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_what_is_loaded_inside_is_passed_over_by_every_collection_to_come() -> None:
    with uncollected():
        assert not gc.isenabled()
        loaded = weakref.ref(Node())
    gc.collect()
    assert loaded() is not None
    gc.unfreeze()
    gc.collect()
    assert loaded() is None


@pytest.mark.usefixtures("thawed")
@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_before_also_after_an_error(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ValueError, match="no such model"), uncollected():
            raise ValueError("no such model")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
