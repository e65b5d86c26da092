"""One row of a data file with its place, for error messages that say where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.literals import begins_like_literal, looks_like_literal, parse_literal
from calibadv.refusals import short_repr


def as_whole(value: Any) -> Any:
    """The value; 2.0 as 2: pandas writes a column's whole numbers as floats where one of its rows has none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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

    def value(self, *keys: str) -> Any:
        """As `get`, for values that are lists or objects: one that was written as text is read.

        DataError for a text that looks like one and cannot be read; any other text stays as it is.
        """
        key = next((key for key in keys if self.fields.get(key) is not None), None)
        return None if key is None else self.read(key, self.fields[key])

    def read(self, key: str, value: Any) -> Any:
        """`value`, found at `key`, as `value()` reads it."""
        if not isinstance(value, str) or not looks_like_literal(value):
            return value
        try:
            return parse_literal(value)
        except ValueError as error:
            raise DataError(
                self.place,
                f"{key!r} is the text {short_repr(value)}: it looks like a list or an object and "
                f"cannot be read ({error})",
                'a list or an object as JSON, e.g. ["Ann", "Bea"]',
                'Write it as JSON; a text that is meant so, brackets included, stands in a list: ["[text]"].',
            ) from error

    def own_id(self) -> str | None:
        """The id that the record has, a string or a number, as text; None where it has none."""
        value = as_whole(self.get("id", "_id"))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise DataError(
                self.place,
                f"the id is {short_repr(value)}",
                "a string or a number",
                "Mend the id, or drop the key: then the content makes one.",
            )
        return self.unicode("id", str(value))

    def whole_number(self, key: str) -> int | None:
        """The whole number of `key`, as text too; None where there is no such key or it is None."""
        value = self.get(key)
        text = str(value).strip().removesuffix(".0")  # as `as_whole`, also in a CSV
        if value is not None and not text.isdecimal():
            raise DataError(self.place, f"{key!r} is {short_repr(value)}", "a whole number", "Mend or drop it.")
        return None if value is None else int(text)

    def need(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        """The value of `key`, of `kind`; otherwise a `DataError` that says what was expected."""
        if key not in self.fields:
            raise DataError(
                self.place,
                f"no key {key!r} among {short_repr(sorted(self.fields))}",
                expected,
                f"Add {key!r} to the record.",
            )
        value = self.fields[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(self.place, f"{key!r} is {short_repr(value)}", expected, f"Mend {key!r} in the record.")
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
        return self.texts(key, self.value(key))

    def texts(self, key: str, values: Any, called: str = "", *, unwrap: bool = False) -> tuple[str, ...]:
        """The strings of the list `values`, found at `key`, as `strings` gives them; errors call them `called`.

        With `unwrap` an entry that is itself a list of strings written as text gives its strings.
        """
        if values is None:
            return ()
        listed = isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)
        parts: list[Any] = [[None]]
        if listed:
            parts = [self.read(key, value) if unwrap and begins_like_literal(value) else [value] for value in values]
        if not all(isinstance(value, str) for part in parts for value in part):
            found = f"the {called} are {short_repr(values)}" if called else f"{key!r} is {short_repr(values)}"
            raise DataError(self.place, found, "a list of strings", f"Mend {key!r} in the record.")
        return tuple(self.unicode(called or key, value.strip()) for part in parts for value in part if value.strip())

    def unicode(self, what: str, value: str) -> str:
        """`value`, unless it holds half of a surrogate pair (JSON's \\ud800), which no file or model can take."""
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    self.place,
                    f"{what!r} holds {short_repr(error.object[error.start])}, half a character, at {error.start}",
                    "whole Unicode characters",
                    "Mend or drop the record.",
                ) from error
        return value
