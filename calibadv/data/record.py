"""One row of a data file with its place, for error messages that say where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calibadv.data.errors import DataError, shown


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file. `place` is `file, line 3`, for JSON lists `file, line 57, row 3`, for parquet `file, row 3`.

    Lines and rows are counted from 1.
    """

    place: str
    fields: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """The first of `keys` that the record has with a value other than None, else None."""
        return next((self.fields[key] for key in keys if self.fields.get(key) is not None), None)

    def need(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        """The value of `key`, of `kind`; otherwise a `DataError` that says what was expected."""
        if key not in self.fields:
            raise DataError(
                self.place,
                f"no key {key!r} among {shown(sorted(self.fields))}",
                expected,
                f"Add {key!r} to the record.",
            )
        value = self.fields[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(self.place, f"{key!r} is {shown(value)}", expected, f"Mend {key!r} in the record.")
        return value

    def text(self, key: str) -> str:
        """The string of `key`, which must not be blank, with its outer white space stripped."""
        value: str = self.need(key, str, f"{key!r} as a string that is not blank").strip()
        if not value:
            raise DataError(
                self.place, f"{key!r} is blank", f"{key!r} as a string that is not blank", "Fill it or drop the record."
            )
        return self.unicode(key, value)

    def strings(self, key: str) -> tuple[str, ...]:
        """The list of strings of `key`, blank ones left out; () where there is no such key or it is None."""
        values = self.get(key)
        if values is None:
            return ()
        if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
            raise DataError(
                self.place, f"{key!r} is {shown(values)}", "a list of strings", f"Mend {key!r} in the record."
            )
        return tuple(self.unicode(key, value.strip()) for value in values if value.strip())

    def unicode(self, what: str, value: str) -> str:
        """`value`, unless it holds half of a surrogate pair (JSON's \\ud800), which no file or model can take."""
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    self.place,
                    f"{what!r} holds {shown(error.object[error.start])}, half a character, at {error.start}",
                    "whole Unicode characters",
                    "Mend or drop the record.",
                ) from error
        return value
