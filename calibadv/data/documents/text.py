"""Plain text and Markdown: a block a paragraph, by lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from calibadv.data.documents.blocks import Block, Unreadable, Why
from calibadv.data.documents.html import UTF_16, fragment_blocks

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def decoded(content: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 with its mark. Unreadable for anything else: no guess is always right."""
    try:
        text = content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(Why.BINARY if b"\0" in content else Why.UNDECODABLE, str(error)) from error
    if "\0" in text:
        raise Unreadable(Why.BINARY)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_blocks(content: bytes) -> Iterator[Block]:
    """A block a paragraph: lines up to a blank one."""
    first, lines = 0, list[str]()
    for number, line in enumerate([*decoded(content).split("\n"), ""], start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line.strip())
        elif lines:
            yield Block("\n".join(lines), f"line={first}")
            lines = []


def markdown_blocks(content: bytes) -> Iterator[Block]:
    """A block a paragraph, heading, block of code and row of a table; HTML as an HTML file. Of links and emphasis the
    words are left.
    """
    from markdown_it import MarkdownIt

    text = decoded(content)
    if front := _FRONT_MATTER.match(text):
        text = "\n" * front[0].count("\n") + text[front.end() :]  # lines keep their numbers
    level, row, line = 0, None, 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else line
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "heading_close":
            level = 0
        elif token.type == "tr_open":
            row = list[str]()
        elif token.type == "tr_close" and row is not None:
            yield Block(" | ".join(row), f"line={line}")
            row = None
        elif token.type == "inline":
            words = "".join(_words(part.type, part.content) for part in token.children or ()).strip()
            if row is not None:
                row.append(words)
            elif words:
                yield Block(words, f"line={line}", level)
        elif token.type in ("fence", "code_block"):
            yield Block(token.content.strip(), f"line={line}")
        elif token.type == "html_block":
            yield from fragment_blocks(token.content, line - 1)


def _words(kind: str, content: str) -> str:
    if kind in ("softbreak", "hardbreak"):
        return "\n"
    if kind == "html_inline":
        return " " if content.lower().startswith("<br") else ""
    return content
