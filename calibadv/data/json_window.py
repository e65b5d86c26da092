"""Reads one large JSON document value by value through a window, so that it is never wholly in memory.

`json` gives exact errors and reads what its own writer wrote (any integer, NaN, lone surrogates), but only whole texts;
this feeds it a list or an object piece by piece.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any

_CHUNK = 2**20  # bytes of one read
_NEAR_END = 16  # an escape or a literal that the window cuts off fails within so many characters of its end


class JsonWindow:
    """A JSON text of which only the values at hand are held. `line` is that of the next value, from 1.

    Bytes that are not UTF-8 are carried along as lone surrogates (`surrogateescape`), so that they spoil one row only:
    `value` raises `UnicodeEncodeError` for it, and the next call goes on behind it.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1

    def next_char(self) -> str:
        """The next character that is not white space, which stays where it is; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def first_line(self) -> tuple[str, bool]:
        """The rest of the line at hand, as far as the window goes, and whether anything but white space follows it."""
        self.next_char()
        while True:
            line, newline, rest = self._text[self._at :].partition("\n")
            if not newline or rest.strip():
                return line, bool(newline)
            if not self._more():
                return line, False

    def take(self, expected: str) -> str:
        """The next character, one of `expected`; JSONDecodeError otherwise."""
        char = self.next_char()
        if not char or char not in expected:
            raise json.JSONDecodeError(f"Expecting one of {expected!r}", self._text, self._at)
        self._at += 1
        return char

    def end(self) -> None:
        """Nothing, if nothing but white space is left; JSONDecodeError otherwise."""
        if self.next_char():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def entry(self) -> tuple[str, Any]:
        """The next `key: value` of an object; raises as `value` does."""
        if self.next_char() != '"':
            self.take('"')
        wrong = None
        try:
            key = self.value()
        except UnicodeEncodeError as error:  # the value has to be read all the same, to come to the next entry
            wrong = error
        self.take(":")
        value = self.value()
        if wrong:
            raise wrong
        return key, value

    def value(self) -> Any:
        """The next value. JSONDecodeError if it is malformed, UnicodeEncodeError if it is not UTF-8."""
        self.next_char()
        while True:
            try:
                value, end = self._at_hand()
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _NEAR_END
                if cut_off and self._more():
                    continue
                self.line += self._text.count("\n", self._at, error.pos)
                raise
            if end > len(self._text) - _NEAR_END and self._more():  # a number may go on
                continue
            source = self._text[self._at : end]
            self._at = end
            self.line += source.count("\n")
            if not source.isascii():
                source.encode()
            return value

    def _at_hand(self) -> tuple[Any, int]:
        """The value at hand and where it ends. JSONDecodeError also for more nesting or digits than Python takes."""
        try:
            return self._scan(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except (RecursionError, ValueError) as error:
            raise json.JSONDecodeError(str(error), self._text, self._at) from None

    def _more(self) -> bool:
        """Whether there was more. Drops what was read, and doubles the window if that was nothing: a long value."""
        if self._ended:
            return False
        self._text, self._at = self._text[self._at :], 0
        raw = self._read(max(_CHUNK, len(self._text)))
        self._ended = not raw
        self._text += self._decoder.decode(raw, final=self._ended)
        return not self._ended or bool(self._text)
