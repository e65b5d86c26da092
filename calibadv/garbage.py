"""No garbage is looked for in what is loaded once and stays: a fifth of the time that libraries take to load."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Around what loads libraries and models: Python's collector rests, and passes over what is there at the end."""
    looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if looking:
            gc.enable()
