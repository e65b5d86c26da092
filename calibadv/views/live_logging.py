"""Logging beside a live display: lines written past it would tear it, so they go through its console."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler


@contextmanager
def live_with_logging(live: Live, console: Console) -> Iterator[None]:
    """Shows `live` within the block, with the root logger's stream handlers replaced by one of its console."""
    root = logging.getLogger()
    # A short time: in a narrow window the date and its brackets take a third of the line.
    handler = RichHandler(console=console, show_path=False, markup=False, log_time_format="%H:%M:%S")
    muted = [other for other in root.handlers if type(other) is logging.StreamHandler]
    for other in muted:
        root.removeHandler(other)
    root.addHandler(handler)
    live.start(refresh=True)
    try:
        yield
    finally:
        live.stop()
        root.removeHandler(handler)
        for other in muted:
            root.addHandler(other)
        console.show_cursor(True)  # rich shows it in stop(); once more for a stop() that was itself interrupted
