"""Opens data files, packed by gzip or not, as bytes or as numbered lines of text; nothing is held but the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from calibadv.data.errors import DataError, OnBad, refuse
from calibadv.refusals import short_repr

GZIP = b"\x1f\x8b"
BROKEN_ARCHIVE = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a damaged gzip archive raises, at its first byte or after a million good lines."""

_OTHER_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc": "7z",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def kind_of(path: Path) -> str:
    """The suffix that says what the file is, without a final `.gz`: `.jsonl` of `wiki-18.jsonl.gz`."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def stem_of(path: Path) -> str:
    """The file's name without the suffixes that `kind_of` reads: `wiki-18` of `wiki-18.jsonl.gz`."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).stem


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where it is a gzip archive, whatever its name.

    DataError for a missing file, another kind of archive and a `.gz` that is none. A damaged one raises
    `BROKEN_ARCHIVE` while it is read.
    """
    if not path.is_file():
        raise DataError(
            str(path),
            "no such file",
            "a .jsonl, .json, .csv, .tsv or .parquet file, the texts also as .gz",
            "Check the path.",
        )
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(GZIP):
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                yield cast(BinaryIO, unpacked)
            return
        _check_not_packed(path, head)
        yield file


def _check_not_packed(path: Path, head: bytes) -> None:
    archive = next((name for magic, name in _OTHER_ARCHIVES.items() if head.startswith(magic)), None)
    if archive:
        raise DataError(str(path), f"it is a {archive} archive", "plain text or gzip", f"Unpack it first ({archive}).")
    if path.suffix == ".gz":
        raise DataError(
            str(path),
            f"unreadable archive: it begins with {short_repr(head)}",
            "a gzip archive, which begins with b'\\x1f\\x8b'",
            "Download it again, or drop .gz from its name if it was unpacked already.",
        )


def broken_archive(place: str, error: Exception) -> DataError:
    """The error for an archive that breaks off at `place`."""
    return DataError(
        place,
        f"unreadable archive: {error}, so that the rest of it cannot be read",
        "a whole gzip archive",
        "Download it again; `gzip -t` checks it.",
    )


def not_utf8(place: str, raw: bytes, start: int) -> DataError:
    """The error for byte `start` of `raw`, which is no UTF-8."""
    encoding = "UTF-16" if raw.startswith(_UTF_16) else "CP1252"  # Windows': LATIN1 would make its quotes controls
    return DataError(
        place,
        f"byte {raw[start]:#04x} at offset {start} is not UTF-8",
        "UTF-8 text",
        f"Convert the file, e.g. `iconv -f {encoding} -t UTF-8`.",
    )


def numbered_lines(path: Path, on_bad: OnBad = refuse) -> Iterator[tuple[int, str]]:
    """(number from 1, text with its line end) of every line. A line that is not UTF-8 goes to `on_bad`.

    So does an archive that breaks off, which ends the lines.
    """
    number = 0
    with opened(path) as file:
        while True:
            try:
                # Not the text layer's lines, which would know neither the number nor the bytes of a bad one.
                raw = file.readline()
            except BROKEN_ARCHIVE as error:
                on_bad(broken_archive(f"{path}, line {number + 1}", error))
                return
            if not raw:
                return
            number += 1
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                on_bad(not_utf8(f"{path}, line {number}", raw, error.start))
                continue
            yield number, text
