"""The view that fits the terminal: the live view where it can be drawn, plain log lines elsewhere (a pipe, CI).

Both are used as context managers and leave the terminal as they found it, also after an exception.
"""

from __future__ import annotations

import sys

from rich.console import Console

from calibadv.tracking.starting import draws
from calibadv.views.live import LiveView
from calibadv.views.plain import PlainView
from calibadv.views.summary import TerminalView


def open_view(total_steps: int, *, plain: bool | None = None, console: Console | None = None) -> TerminalView:
    """The view that fits the terminal; `plain` forces log lines (True) or the live view (False).

    A given `console` is drawn on as it is. Else the live view has the terminal to itself, and what others write there
    is kept from it.
    """
    if plain is None:
        plain = not draws(console.is_terminal if console else sys.stdout.isatty())
    return PlainView(total_steps) if plain else LiveView(total_steps, console)
