"""docs/extend.md as tests read it: its examples, so that page and tests cannot part."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"


def examples() -> dict[str, list[tuple[str, str]]]:
    """(language, text) of every example, in the page's order, by the heading that it stands under."""
    found: dict[str, list[tuple[str, str]]] = {}
    page = PAGE.read_text(encoding="utf-8")
    for section in re.split(r"^#+ ", page, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        if blocks := re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found[heading] = blocks
    return found


def example(heading: str, language: str) -> str:
    """The one example of this language under the heading."""
    (text,) = (text for name, text in examples()[heading] if name == language)
    return text


def mine() -> str:
    """mine.py as the page has it, of all its Python."""
    return "\n\n".join(text for blocks in examples().values() for name, text in blocks if name == "python")
