"""The word that was meant by a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(wrong: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """ " (did you mean 'grpo'?)", the nearest of the `known` at least as alike as `cutoff` in [0, 1]; "" if none is."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {near[0]!r}?)" if near else ""
