"""The records of JSON files: one a line (jsonl), a list of them, or an object of title -> sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from calibadv.data.errors import DataError, OnBad
from calibadv.data.json_window import JsonWindow
from calibadv.data.reading import BROKEN_ARCHIVE, broken_archive, kind_of, not_utf8, numbered_lines, opened
from calibadv.data.record import Record
from calibadv.json_lines import json_value
from calibadv.refusals import short_repr

_TOLD_BY = 64  # entries of an object that are looked at to tell a corpus from a single record, which has fewer


def json_records(path: Path, on_bad: OnBad) -> Iterator[Record]:
    """The records of a jsonl file, of a list, or of an object, one at a time.

    An object of titles becomes one record {title, sentences} an entry: HotpotQA's corpora come so. A file that breaks
    off, or is malformed so that its next record cannot be found, goes to `on_bad` and ends there.
    """
    if kind_of(path) == ".jsonl":
        yield from _lines(path, on_bad)
        return
    with opened(path) as file:
        window = JsonWindow(file.read)
        try:
            first = window.next_char()
            lines = first == "{" and _first_line_is_a_record(window)
        except BROKEN_ARCHIVE as error:
            raise broken_archive(f"{path}, line 1", error) from error
        if first and first in "[{" and not lines:
            yield from _list(path, window, on_bad) if first == "[" else _object(path, window, on_bad)
            return
        if first and not lines:
            raise _no_json(path, window)
    if lines:  # jsonl is also found under other names
        yield from _lines(path, on_bad)


def _first_line_is_a_record(window: JsonWindow) -> bool:
    line, goes_on = window.first_line()
    try:
        return goes_on and isinstance(json_value(line), dict)
    except ValueError:
        return False


def _lines(path: Path, on_bad: OnBad) -> Iterator[Record]:
    for number, line in numbered_lines(path, on_bad):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json_value(line)
        except json.JSONDecodeError as error:
            on_bad(_malformed(place, error))
            continue
        except ValueError as error:  # more nesting or digits than Python takes
            on_bad(_malformed(place, json.JSONDecodeError(str(error), line, 0)))
            continue
        yield from _record(place, value, on_bad)


def _list(path: Path, window: JsonWindow, on_bad: OnBad) -> Iterator[Record]:
    for place, value in _values(path, window, window.value, "[]", on_bad):
        yield from _record(place, value, on_bad)


def _object(path: Path, window: JsonWindow, on_bad: OnBad) -> Iterator[Record]:
    entries = _values(path, window, window.entry, "{}", on_bad)
    first = list(islice(entries, _TOLD_BY))
    fields = dict(entry for _, entry in first)
    if len(first) < _TOLD_BY and _is_one_record(fields):
        yield Record(f"{path}, line 1, row 1", fields)
        return
    for rest in (first, entries):
        for place, (title, body) in rest:
            yield Record(place, {"title": title, "sentences": body})


def _is_one_record(fields: dict[str, Any]) -> bool:
    """Whether an object is a jsonl file of one line, not a corpus, whose values are passages."""
    return bool(fields) and (
        "title" in fields or "question" in fields or not all(isinstance(v, (list, str)) for v in fields.values())
    )


def _values(
    path: Path, window: JsonWindow, read: Callable[[], Any], brackets: str, on_bad: OnBad
) -> Iterator[tuple[str, Any]]:
    """(place, value) of each value between the brackets at hand, each read by `read`."""
    opening, closing = brackets[0], brackets[1]
    number = 0
    place = f"{path}, line 1"
    try:
        window.take(opening)
        more = window.next_char() != closing
        while more:
            number += 1
            window.next_char()
            place = f"{path}, line {window.line}, row {number}"
            try:
                value = read()
            except UnicodeEncodeError as error:
                raw = error.object.encode("utf-8", "surrogateescape")
                on_bad(not_utf8(place, raw, len(error.object[: error.start].encode("utf-8", "surrogateescape"))))
            else:
                yield place, value
            more = window.take("," + closing) == ","
        if not number:
            window.take(closing)
        window.end()
    except json.JSONDecodeError as error:
        on_bad(_malformed(f"{path}, line {window.line}, row {max(1, number)}", error))
    except BROKEN_ARCHIVE as error:
        on_bad(broken_archive(place, error))


def _record(place: str, value: Any, on_bad: OnBad) -> Iterator[Record]:
    if isinstance(value, dict):
        yield Record(place, value)
    else:
        on_bad(DataError(place, f"found {short_repr(value)}", "a JSON object", "Check the file's format."))


def _malformed(place: str, error: json.JSONDecodeError) -> DataError:
    near = error.doc[max(0, error.pos - 20) : error.pos + 20]
    return DataError(
        place, f"malformed JSON at {short_repr(near)} ({error.msg})", "valid JSON", "Mend or download it again."
    )


def _no_json(path: Path, window: JsonWindow) -> DataError:
    line, _ = window.first_line()
    raw = line[:80].encode("utf-8", "surrogateescape")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return not_utf8(f"{path}, line 1", raw, 0)
    return DataError(
        f"{path}, line {window.line}",
        f"found {short_repr(line)}",
        "a JSON list, a JSON object or jsonl",
        "Check the file.",
    )
