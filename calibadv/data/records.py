"""Reads the records of a data file (jsonl, JSON list, JSON object, parquet), each with its place for error messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibadv.data.errors import DataError, shown


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object of a file. `place` is `file, line 3` (jsonl, from 1) or `file, row 3` (JSON, parquet, from 1)."""

    place: str
    fields: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """The first of `keys` that the record has, else None."""
        return next((self.fields[key] for key in keys if key in self.fields), None)

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
        return value


def read_records(path: Path) -> list[Record]:
    """The records of a file, at least one.

    A JSON object of titles becomes one record {title, sentences} an entry: HotpotQA's corpora come so.
    """
    if not path.is_file():
        raise DataError(str(path), "no such file", "a .jsonl, .json or .parquet file", "Check the path.")
    records = _parquet(path) if path.suffix == ".parquet" else _json(path)
    if not records:
        raise DataError(str(path), "the file holds no records", "at least one", "Check that it was written completely.")
    return records


def _json(path: Path) -> list[Record]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            str(path),
            f"byte {error.object[error.start]:#04x} at offset {error.start} is not UTF-8",
            "UTF-8 text",
            "Convert the file, e.g. `iconv -f LATIN1 -t UTF-8`.",
        ) from error
    if path.suffix != ".jsonl":
        try:
            return _whole(path, json.loads(text))
        except json.JSONDecodeError as error:
            # jsonl is also found under other names; a single malformed document is not jsonl.
            if not _first_line_is_object(text):
                raise _malformed(f"{path}, line {error.lineno}", error) from error
    return _lines(path, text)


def _first_line_is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except json.JSONDecodeError:
        return False


def _malformed(place: str, error: json.JSONDecodeError) -> DataError:
    near = error.doc[max(0, error.pos - 20) : error.pos + 20]
    return DataError(
        place, f"malformed JSON at {shown(near)} ({error.msg})", "valid JSON", "Mend or download it again."
    )


def _lines(path: Path, text: str) -> list[Record]:
    records = []
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            records.append(_record(place, json.loads(line)))
        except json.JSONDecodeError as error:
            raise _malformed(place, error) from error
    return records


def _whole(path: Path, value: Any) -> list[Record]:
    if isinstance(value, list):
        return [_record(f"{path}, row {number}", row) for number, row in enumerate(value, start=1)]
    if isinstance(value, dict):
        if not all(isinstance(body, (list, str)) for body in value.values()) or "title" in value or "question" in value:
            return [_record(f"{path}, row 1", value)]  # a jsonl file of one line
        return [
            Record(f"{path}, row {number}", {"title": title, "sentences": body})
            for number, (title, body) in enumerate(value.items(), start=1)
        ]
    raise DataError(str(path), f"found {shown(value)}", "a JSON list, a JSON object or jsonl", "Check the file.")


def _record(place: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise DataError(place, f"found {shown(value)}", "a JSON object", "Check the file's format.")
    return Record(place, value)


def _parquet(path: Path) -> list[Record]:
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise DataError(str(path), f"unreadable ({error})", "a parquet file", "Download it again.") from error
    return [Record(f"{path}, row {number}", row) for number, row in enumerate(rows, start=1)]
