"""The files of a corpus store: how a document lies in them, and the manifest that says they are whole.

Array legend: N documents, B buckets of the id index.

    texts.bin      the documents one after the other: three lengths, then id, title and text as UTF-8
    starts.i64     [N] where each begins in texts.bin
    hashes.u64     [N] 64-bit hashes of the ids, ascending
    rows.i64       [N] the row of the document of each hash
    buckets.i64    [B + 1] where the hashes of each bucket (their first bits) begin: what makes a look-up O(1)
    manifest.json  written last
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from struct import Struct

from calibadv.data.errors import DataError
from calibadv.files import write_text
from calibadv.types import Document

FORMAT = 1
TEXTS, STARTS, HASHES, ROWS, BUCKETS, MANIFEST = (
    "texts.bin",
    "starts.i64",
    "hashes.u64",
    "rows.i64",
    "buckets.i64",
    "manifest.json",
)
_LENGTHS = Struct("<III")  # bytes of id, title and text
_PER_BUCKET = 8  # documents, at most, on average


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a whole store says of itself."""

    documents: int
    repeated: int  # passages without an id of their own that were left out because an earlier one is equal
    skipped: int  # documents left out for the id of an earlier one
    fingerprint: str  # of ids, titles and texts in order
    sizes: Mapping[str, int]  # bytes of each file
    format: int = FORMAT


def bucket_bits(documents: int) -> int:
    """How many first bits of a hash choose its bucket."""
    return (documents // _PER_BUCKET).bit_length()


def id_hash(doc_id: bytes) -> bytes:
    """64 bits of an id, little-endian: the same on every machine and in every process."""
    return hashlib.blake2b(doc_id, digest_size=8).digest()


class StoredTexts:
    """The memory-mapped documents of texts.bin, each by where it begins."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def id(self, start: int) -> bytes:
        """The id alone, as UTF-8."""
        begin = start + _LENGTHS.size
        return self._bytes[begin : begin + _LENGTHS.unpack_from(self._bytes, start)[0]]

    def document(self, start: int) -> Document:
        """The whole document."""
        id_bytes, title_bytes, text_bytes = _LENGTHS.unpack_from(self._bytes, start)
        begin = start + _LENGTHS.size
        title = begin + id_bytes
        text = title + title_bytes
        return Document(
            self._bytes[begin:title].decode(),
            self._bytes[title:text].decode(),
            self._bytes[text : text + text_bytes].decode(),
        )


def packed(document: Document) -> tuple[bytes, bytes]:
    """(the document as it lies in texts.bin, its id). `score` is not kept: it belongs to a search."""
    doc_id, title, text = document.id.encode(), document.title.encode(), document.text.encode()
    return _LENGTHS.pack(len(doc_id), len(title), len(text)) + doc_id + title + text, doc_id


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes it in one step: a reader finds all of it or none."""
    write_text(folder / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a whole store; DataError where the folder is no store, is not whole or is of another format."""
    remedy = "Build it again: workflows/prepare_data.py corpus CORPUS_FILE FOLDER."
    try:
        fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise DataError(str(folder), f"a corpus store of format {fields['format']}", f"format {FORMAT}", remedy)
        manifest = Manifest(**fields)
        sizes = {name: (folder / name).stat().st_size for name in manifest.sizes}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            str(folder), f"no whole corpus store ({error})", f"a folder with {MANIFEST} and the files it names", remedy
        ) from error
    wrong = [name for name, size in sizes.items() if size != manifest.sizes[name]]
    if wrong:
        raise DataError(
            str(folder / wrong[0]),
            f"it has {sizes[wrong[0]]} bytes",
            f"{manifest.sizes[wrong[0]]}, as {MANIFEST} says",
            f"It was not copied completely, or changed. {remedy}",
        )
    return manifest
