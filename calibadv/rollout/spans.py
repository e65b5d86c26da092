"""Which sampled tokens wrote a piece of a turn's text. Nothing is encoded: prefixes of the ids are decoded."""

from __future__ import annotations

from collections.abc import Callable

from calibadv.types import IntArray


def token_span(ids: IntArray, start: int, end: int, text_of: Callable[[IntArray], str]) -> tuple[int, int]:
    """First and one past the last of the tokens `ids` that write characters [start, end) of their text.

    A token that writes characters on both sides of an edge belongs to the span.
    """

    def tokens_within(characters: int) -> int:
        """The most first tokens whose text is no longer than so many characters."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high + 1) // 2
            if len(text_of(ids[:middle])) <= characters:
                low = middle
            else:
                high = middle - 1
        return low

    return tokens_within(start), min(tokens_within(end - 1) + 1, len(ids))
