"""What a file of any kind is read as: headings and paragraphs in their order, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph, an item of a list or a row of a table."""

    text: str
    place: str  # as a URI's fragment has it: line=12, page=3, slide=4, paragraph=9, sheet=Prices&row=7
    level: int = 0  # of a heading, 1 the highest; 0: no heading


class Why(StrEnum):
    """Why a file cannot be read. One of them is counted for each file that is left out."""

    OTHER_KIND = "of a kind that is not read"
    OUTSIDE = "linked to outside of the folder"
    EMPTY = "without text"
    ENCRYPTED = "encrypted"
    BINARY = "binary, in spite of its name"
    UNDECODABLE = "not UTF-8"
    DAMAGED = "damaged"
    TOO_LARGE = "too large"


class Unreadable(Exception):
    """A file that is left out. `detail`: what the library said, or "" where the reason says it all."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(f"{why}: {detail}" if detail else str(why))
        self.why = why
