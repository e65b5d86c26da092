"""Passages of a file: its sections, each cut into windows of so many words that overlap."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from calibadv.data.documents.blocks import Block
from calibadv.unspaced import UNSPACED

_HEADING_CHARS = 120  # of a heading; whole paragraphs in a heading's style are text
_WORD = re.compile(rf"{UNSPACED.pattern}|(?:(?!{UNSPACED.pattern})\S)+")
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’»)\]]*$")


@dataclass(frozen=True, slots=True)
class Window:
    """How a section is cut: `words` in a passage, of which it shares `overlap` with the one before. A Han, Kana or
    Thai character counts as a word."""

    words: int = 100  # as wiki-18, which the paper's agents search, is cut
    overlap: int = 20

    def __post_init__(self) -> None:
        if self.words < 8 or not 0 <= self.overlap <= self.words // 2:
            raise ValueError(
                f"--words {self.words} and --overlap {self.overlap}: expected at least 8 words, and an overlap of at "
                "most half of them"
            )


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a file: the headings above it, and the place at which it begins."""

    headings: tuple[str, ...]
    text: str
    place: str


def passages(blocks: Iterable[Block], window: Window) -> Iterator[Passage]:
    """The passages of a file in its order. None crosses a heading, so that each belongs under its title alone.

    A heading with nothing below it is a passage of its own words, since they stand nowhere else.
    """
    open_headings, section = list[Block](), list[Block]()
    for block in (*blocks, None):
        if block is not None and not _is_heading(block):
            section.append(block)
            continue
        level = 0 if block is None else block.level
        if not section and open_headings and level <= open_headings[-1].level:
            section = [Block(open_headings[-1].text, open_headings[-1].place)]
        headings = tuple(heading.text for heading in open_headings)
        yield from (Passage(headings, text, place) for text, place in windows(section, window))
        section = []
        if block is not None:
            open_headings = [*(heading for heading in open_headings if heading.level < level), block]


def windows(section: Sequence[Block], window: Window) -> Iterator[tuple[str, str]]:
    """(text, place of its beginning) of the passages of a section, one blank or line end between words as they were.

    A passage ends after a sentence or block where there is one in its last third, and the next one begins with a
    sentence or block where one begins in the overlap.
    """
    if not section:
        return
    text = "\n".join(block.text for block in section)
    starts = [0, *accumulate(len(block.text) + 1 for block in section[:-1])]  # of the blocks in the text
    words = [found.span() for found in _WORD.finditer(text)]
    block_of = [bisect_right(starts, start) - 1 for start, _ in words]
    ends = [
        at + 1 == len(words) or block_of[at + 1] != block_of[at] or bool(_SENTENCE_END.search(text[start:end]))
        for at, (start, end) in enumerate(words)
    ]  # whether a sentence or block ends with the word
    begin = 0
    while begin < len(words):
        end = min(begin + window.words, len(words))
        if end < len(words):
            fitting = range(end, begin + 2 * window.words // 3, -1)
            end = next((at for at in fitting if ends[at - 1]), end)
        yield text[words[begin][0] : words[end - 1][1]], section[block_of[begin]].place
        if end == len(words):
            return
        shared = end - window.overlap
        begin = next((at for at in range(shared, end) if ends[at - 1]), shared)


def _is_heading(block: Block) -> bool:
    return block.level > 0 and len(block.text) <= _HEADING_CHARS
