"""HTML, and what is converted to it: a block a paragraph, heading, item or row; no scripts, styles and navigation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from calibadv.data.documents.blocks import Block, Unreadable, Why

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how a file of it begins
_NO_TEXT = ("script", "style", "noscript", "template", "nav", "footer", "aside", "svg", "head")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_PARTS = (
    *(*_HEADINGS, "p", "li", "pre", "dt", "dd", "blockquote", "figcaption", "caption", "summary", "details"),
    *("div", "section", "article", "main", "header", "ul", "ol", "dl", "table", "fieldset", "address", "body", "html"),
)  # elements that begin a line of their own; what stands between two of them is one block

Place = Callable[[Any, int], str]
"""(element, number of its block from 1) -> its place in the file. None stands for a text that no element is before."""


def html_blocks(content: bytes) -> Iterator[Block]:
    """The blocks of a page by its lines; its encoding is the one that it declares."""
    from bs4 import BeautifulSoup

    if b"\0" in content and not content.startswith(UTF_16):
        raise Unreadable(Why.BINARY)
    page = BeautifulSoup(content, "html.parser")  # the one that knows lines
    if page.contains_replacement_characters:
        raise Unreadable(Why.UNDECODABLE, f"nor the {page.original_encoding} that it says")
    return _by_lines(page, 0)


def fragment_blocks(text: str, above: int) -> Iterator[Block]:
    """The blocks of HTML within a file, `above` lines of which stand before."""
    from bs4 import BeautifulSoup

    return _by_lines(BeautifulSoup(text, "html.parser"), above)


def _by_lines(page: Any, above: int) -> Iterator[Block]:
    return blocks_of(page, lambda element, _: f"line={above + (element.sourceline if element else 1)}")


def blocks_of(page: Any, place: Place) -> Iterator[Block]:
    """The blocks of a parsed page, which is changed."""
    from bs4 import NavigableString

    for element in page(_NO_TEXT):
        element.decompose()
    for element in page("br"):
        element.replace_with("\n")
    for row in page("tr"):
        for cell in row(("td", "th"), recursive=False)[1:]:
            cell.insert_before(" | ")
    texts = (found for found in page.descendants if type(found) is NavigableString)  # a comment is of another type
    number = 0
    for _, parts in groupby(texts, lambda found: id(_part(found))):
        strings = list(parts)
        text = " ".join("".join(strings).split()).removesuffix("¶")  # the link to a heading in generated pages
        if text.strip(" |"):
            number += 1
            part = _part(strings[0])
            level = _HEADINGS.index(part.name) + 1 if part.name in _HEADINGS else 0
            # What stands in no element, as in a fragment, is where the one before it is.
            element = part if part is not page else strings[0].find_previous(True) or strings[0].find_next(True)
            yield Block(text, place(element, number), level)


def _part(text: Any) -> Any:
    """What a text's block is of: the row of a table, where it is in one, else the nearest of `_PARTS`, or the page."""
    nearest = text.find_parent(_PARTS)
    if nearest is not None and nearest.name in _HEADINGS:
        return nearest
    row = text.find_parent("tr")
    return row or nearest or text.find_parents()[-1]
