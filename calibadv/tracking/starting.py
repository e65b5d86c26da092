"""A command's first sign of life, before what takes seconds to import: needs hardly more than the standard library.

On a terminal a line with a spinner and the seconds, which goes away; elsewhere, once, a log line.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from calibadv.garbage import uncollected

_FRAMES, _ASCII_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
_EVERY_S = 0.1
_CLEAR_LINE = "\r\x1b[2K"
_WORDS = "loading its libraries"
_shown: list[_Line] = []
_began: list[str] = []  # the command of this process, where it is one


class _Line:
    """Redraws itself on a terminal until `clear`."""

    def __init__(self, terminal: TextIO, words: str) -> None:
        self._terminal, self._words, self._began_s = terminal, words, time.monotonic()
        self._frames = _FRAMES if (terminal.encoding or "").lower().replace("-", "") == "utf8" else _ASCII_FRAMES
        self._over = threading.Event()
        self._draw(0)
        self._thread = threading.Thread(target=self._turn, name="starting", daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Takes the line away."""
        self._over.set()
        self._thread.join()
        self._terminal.write(_CLEAR_LINE)
        self._terminal.flush()

    def _turn(self) -> None:
        number = 0
        while not self._over.wait(_EVERY_S):
            number += 1
            self._draw(number)

    def _draw(self, number: int) -> None:
        spent_s = time.monotonic() - self._began_s
        frame = self._frames[number % len(self._frames)]
        self._terminal.write(f"{_CLEAR_LINE}{frame} {self._words}  {spent_s:.0f} s")
        self._terminal.flush()


def say_starting(command: str) -> None:
    """Says that `command` is there and loads its libraries, until `said_starting`."""
    _began.append(command)
    if not _show(command):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')} {command}: {_WORDS}\n")
        sys.stderr.flush()


def _show(command: str) -> bool:
    """Whether a terminal says it now."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)  # there is nothing to save, and a traceback of an import says nothing
    if on_terminal := draws(sys.stdout.isatty()):
        _shown.append(_Line(sys.stdout, f"{command}: {_WORDS}"))
    return on_terminal


@contextmanager
def loading() -> Iterator[None]:
    """Says on a terminal that a command which has begun loads more: what it needs once its arguments are known."""
    if _began:
        _show(_began[0])
    try:
        with uncollected():
            yield
    finally:
        said_starting()


def said_starting() -> None:
    """What was to be loaded is loaded: the terminal is free for whoever comes next."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    while _shown:
        _shown.pop().clear()


def _end(*_: object) -> None:
    """Ctrl-C while libraries are loaded."""
    if _shown:
        sys.stdout.write("\n")
        sys.stdout.flush()
    os._exit(130)


def draws(on_terminal: bool) -> bool:
    """Whether what is written may be drawn over again: on a terminal that can do so, and not in CI."""
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return on_terminal and not dumb and not os.environ.get("CI")
