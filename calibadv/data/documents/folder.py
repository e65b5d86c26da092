"""A folder of documents -> rows of a corpus; every file is read, or left out for a reason that is counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from calibadv.data.documents.blocks import Block, Unreadable, Why
from calibadv.data.documents.html import html_blocks
from calibadv.data.documents.office import docx_blocks, pptx_blocks, sheet_blocks
from calibadv.data.documents.pdf import pdf_blocks
from calibadv.data.documents.splitting import Passage, Window, passages
from calibadv.data.documents.tables import csv_blocks
from calibadv.data.documents.text import markdown_blocks, plain_blocks
from calibadv.data.passages import passage_id

Reader = Callable[[bytes], Iterator[Block]]
READERS: Mapping[str, Reader] = {
    ".md": markdown_blocks,
    ".markdown": markdown_blocks,
    ".txt": plain_blocks,
    ".text": plain_blocks,
    ".rst": plain_blocks,
    ".html": html_blocks,
    ".htm": html_blocks,
    ".xhtml": html_blocks,
    ".pdf": pdf_blocks,
    ".docx": docx_blocks,
    ".pptx": pptx_blocks,
    ".xlsx": sheet_blocks,
    ".xlsm": sheet_blocks,
    ".xls": sheet_blocks,
    ".ods": sheet_blocks,
    ".csv": csv_blocks,
    ".tsv": csv_blocks,
}
MOST_BYTES = 2**28  # of a file, which is held in memory


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """A line of the corpus file: a `Document`, and where it stands.

    `id` is SOURCE#PLACE, so that a citation, which knows a document by its id, says where to look.
    """

    id: str
    title: str  # the headings above it, before them the file's name where it has no title of its own
    text: str
    source: str  # the file, from the folder
    place: str  # at which the passage begins

    def to_json(self) -> dict[str, str]:
        """The line."""
        return asdict(self)


@dataclass
class Found:
    """What became of a folder. `files == read + sum(left_out.values())` once it is read."""

    files: int = 0
    read: int = 0
    passages: int = 0
    repeated: int = 0  # passages that equal one of another place, in title and text
    left_out: Counter[Why] = field(default_factory=Counter)


OnLeftOut = Callable[[str, Unreadable], None]
"""Called with a file, from the folder, and why it is left out."""


def read_folder(folder: Path, window: Window, found: Found, on_left_out: OnLeftOut) -> Iterator[CorpusRow]:
    """The passages of all files below `folder` in the order of their paths. Counts into `found` as it goes.

    Hidden files and folders (of a leading ".") are none. A link to outside of the folder, which may lead to anything on
    this machine, is left out; one to a folder inside is not followed, for that is read where it lies. A passage that
    repeats an earlier one is left out.
    """
    seen = set[str]()
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        outside = path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root)
        if any(part.startswith(".") for part in inside.parts) or not (outside or path.is_file()):
            continue
        source = inside.as_posix()
        found.files += 1
        try:
            if outside:
                raise Unreadable(Why.OUTSIDE, os.path.realpath(path))
            of_file = list(passages(file_blocks(path), window))
            if not of_file:
                raise Unreadable(Why.EMPTY)
        except Unreadable as error:
            found.left_out[error.why] += 1
            on_left_out(source, error)
            continue
        found.read += 1
        for row in _rows(source, of_file):
            content = passage_id(row.title, row.text)
            if content in seen:
                found.repeated += 1
                continue
            seen.add(content)
            found.passages += 1
            yield row


def file_blocks(path: Path) -> list[Block]:
    """The blocks of a file, by its suffix. Raises `Unreadable`."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Unreadable(Why.OTHER_KIND, path.suffix or "no suffix")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise Unreadable(Why.TOO_LARGE, f"{size:,} bytes")
    try:
        return list(reader(path.read_bytes()))
    except (Unreadable, ImportError):  # a library that is not there is no fault of the file
        raise
    except MemoryError as error:
        raise Unreadable(Why.TOO_LARGE, repr(error)) from error
    except Exception as error:  # a converter raises whatever a damaged file leads to
        raise Unreadable(_of(error), repr(error)) from error


def _of(error: Exception) -> Why:
    return Why.ENCRYPTED if "password" in type(error).__name__.lower() else Why.DAMAGED


def _rows(source: str, of_file: list[Passage]) -> Iterator[CorpusRow]:
    at = Counter[str]()
    stem = " ".join(Path(source).stem.replace("_", " ").split())
    whole = {passage.headings[:1] for passage in of_file}  # one heading above all: the file's own title
    above = () if len(whole) == 1 and () not in whole else (stem,)
    for passage in of_file:
        at[passage.place] += 1
        part = f"&part={at[passage.place]}" if at[passage.place] > 1 else ""  # of a page, of a long paragraph
        title = " > ".join((*above, *passage.headings))
        yield CorpusRow(f"{source}#{passage.place}{part}", title, passage.text, source, passage.place)
