"""Text of others for a terminal: what a policy, a document, a server or a file says may hold escape characters."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a blank for each character that could steer the terminal, line breaks among them."""
    return "".join(character if character.isprintable() else " " for character in text)
