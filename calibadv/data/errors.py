"""What is wrong with a data file, said so that its owner can mend it, and who decides whether to go on without it."""

from __future__ import annotations

from collections.abc import Callable


class DataError(ValueError):
    """A data file that cannot be used: names the place, the value, what was expected and the remedy."""

    def __init__(self, place: str, found: str, expected: str, remedy: str, rows: int = 1) -> None:
        super().__init__(f"{place}: {found}; expected {expected}. {remedy}")
        self.place = place
        self.rows = rows  # that are lost with it, where that is known


class RepeatedId(DataError):
    """Two documents of one id: the one at `place` has that of the one at `first`."""

    def __init__(self, place: str, doc_id: str, first: str) -> None:
        super().__init__(
            place,
            f"id {doc_id!r} was already used in {first}",
            "every document to have an id of its own",
            "Number the documents anew, or drop one of the two.",
        )
        self.doc_id = doc_id


OnBad = Callable[[DataError], None]
"""Called with what is wrong with a row. If it returns, the row is left out and reading goes on with the next one."""


def refuse(error: DataError) -> None:
    """Raises `error`: the default everywhere, for a file with one bad row may be the wrong file."""
    raise error
