"""A value on its way to another process, with the user's files that it may be made of."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from calibadv.user_code import Source, install, sources

T = TypeVar("T")


class Shipped(Generic[T]):
    """`value`, here and wherever this is unpickled: files that settings name are imported there first, from their text.

    A function could be pickled by value instead, but not one with a cache, nor a module with an open client.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        from ray import cloudpickle

        return _arrived, (sources(), cloudpickle.dumps(self.value))


def _arrived(files: tuple[Source, ...], pickled: bytes) -> Shipped[Any]:
    install(files)
    return Shipped(pickle.loads(pickled))


def shipped_factory(make: Callable[[], T]) -> Callable[[], T]:
    """`make`, as one that can be sent."""
    return partial(_call, Shipped(make))


def _call(factory: Shipped[Callable[[], T]]) -> T:
    return factory.value()
