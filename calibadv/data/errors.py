"""What is wrong with a data file, said so that its owner can mend it."""

from __future__ import annotations


class DataError(ValueError):
    """A data file that cannot be used: names the place, the value, what was expected and the remedy."""

    def __init__(self, place: str, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{place}: {found}; expected {expected}. {remedy}")
        self.place = place


def shown(value: object, limit: int = 80) -> str:
    """`value` as an error message quotes it: never more than `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
