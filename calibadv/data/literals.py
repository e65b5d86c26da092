"""Reads lists and objects that were written as text: JSON, Python's repr (pandas' `to_csv`) and numpy's.

Nothing is evaluated: a small parser knows strings, numbers, the words None, True, False, null, true, false and nan,
brackets of every kind, and the wrappers `array(…, dtype=…)`, `list(…)` and `np.str_(…)`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from calibadv.json_lines import json_value

_ESCAPE = r"""\\[\\'"abfnrtvxuUN0-7]"""
_TOKEN = re.compile(
    rf"""(?P<text>'(?:[^'\\]|{_ESCAPE})*'|"(?:[^"\\]|{_ESCAPE})*")"""
    r"""|(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))"""
    r"""|(?P<name>[A-Za-z_][\w.]*)"""
    r"""|(?P<sign>\.\.\.|[][(){},:=])""",
    re.DOTALL,
)
_BLANK = re.compile(r"\s*")
_WORDS = dict.fromkeys(("None", "null", "nan", "NaN")) | {"True": True, "true": True, "False": False, "false": False}
_WRAPPERS = ("array", "list", "tuple", "set", "str_")  # after the last dot: np.array, numpy.str_
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_OPENINGS = ("['", '["', "[{", "{'", '{"', "array(", "np.array(", "numpy.array(", '"[', '"{')
"""How a list of texts or an object begins, also one whose end was cut off; plain text hardly does."""


def looks_like_literal(text: str) -> bool:
    """Whether `text` looks like a list or an object, readable or not: by its brackets, or by how it begins."""
    text = text.strip()
    return text.startswith(_OPENINGS) or (text[:1], text[-1:]) in (("[", "]"), ("{", "}")) or _is_tuple(text)


def begins_like_literal(text: str) -> bool:
    """Whether `text` begins as only a written list of texts or an object does: "['a'", not "[sic]"."""
    return text.lstrip().startswith(_OPENINGS)


def parse_literal(text: str) -> Any:
    """The list or dict that `text` is written as; a tuple or a set is a list. ValueError says why it is none."""
    try:
        value = json_value(text)
    except ValueError:
        try:
            value = _Parser(text).whole()
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    if isinstance(value, str) and looks_like_literal(value):  # written twice over
        return parse_literal(value)
    if not isinstance(value, (list, dict)):
        raise ValueError("it is neither a list nor an object")
    return value


def _is_tuple(text: str) -> bool:
    """Whether `text` is a tuple of texts; one that cannot be read is taken for words in brackets."""
    if not (text.startswith(("('", '("')) and text.endswith(")")):
        return False
    try:
        parse_literal(text)
    except ValueError:
        return False
    return True


class _Parser:
    """One text, read from the left; `_at` is where the next token begins."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def whole(self) -> Any:
        """The one value of the text."""
        value = self._value()
        self._skip()
        if self._at < len(self._text):
            raise ValueError(f"there is more after it, at {self._near()}")
        return value

    def _value(self) -> Any:
        kind, token = self._take()
        if kind == "text":
            try:
                return ast.literal_eval(token)
            except (SyntaxError, ValueError):
                raise ValueError(f"{token[:20]!r} is no quoted text") from None
        if kind == "number":
            return float(token) if set(token) & set(".eE") else int(token)
        if kind == "name" and token in _WORDS:
            return _WORDS[token]
        if kind == "name" and token.rpartition(".")[2] in _WRAPPERS:
            return self._wrapped()
        if token in ("[", "("):
            return self._items(token, self._value)
        if token == "{":
            return self._braces()
        if token == "...":
            raise ValueError("numpy has left its middle out, '...'")
        raise ValueError(f"{token!r} is neither quoted nor a number")

    def _braces(self) -> Any:
        """A dict, or a set as a list."""
        keyed: set[bool] = set()

        def item() -> Any:
            value = self._value()
            keyed.add(self._next_is(":"))
            if self._next_is(":"):
                self._take()
                return value, self._value()
            return value

        items = self._items("{", item)
        if len(keyed) > 1 or (True in keyed and not all(isinstance(key, str) for key, _ in items)):
            raise ValueError("its keys are not all texts")
        return items if keyed == {False} else dict(items)

    def _items(self, opening: str, item: Callable[[], Any]) -> list[Any]:
        """What stands between the brackets: all apart by commas, or, as numpy writes lists, all by white space."""
        closing, commas = _CLOSING[opening], set[bool]()
        items: list[Any] = []
        while not self._next_is(closing):
            if items:
                commas.add(self._next_is(","))
                if self._next_is(","):
                    self._take()
                    if self._next_is(closing):  # ('a',)
                        break
                elif self._at < len(self._text) and not self._text[self._at - 1].isspace():
                    raise ValueError(f"there is no comma before {self._near()}")
            items.append(item())
        self._take()
        if len(commas) > 1 or (opening == "{" and False in commas):
            raise ValueError("commas stand between some of its values and not between others")
        return items

    def _wrapped(self) -> Any:
        """The first argument; what is named, as in dtype=object, is passed over."""
        if self._take()[1] != "(":
            raise ValueError("a value is not quoted")
        value = self._value()
        while self._next_is(","):
            self._take()
            if not self._next_is(")"):
                name, equals, said = self._take(), self._take(), self._take()
                if name[0] != "name" or equals[1] != "=" or said[0] == "sign":
                    raise ValueError(f"its wrapper cannot be read at {self._near()}")
        if self._take()[1] != ")":
            raise ValueError("its wrapper is not closed")
        return value

    def _next_is(self, sign: str) -> bool:
        self._skip()
        return self._text.startswith(sign, self._at)

    def _take(self) -> tuple[str, str]:
        """(kind, token) of the next token, which is passed."""
        self._skip()
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise ValueError("it breaks off" if self._at == len(self._text) else f"it breaks off at {self._near()}")
        self._at = found.end()
        return str(found.lastgroup), found.group()

    def _skip(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None
        self._at = blank.end()

    def _near(self) -> str:
        return repr(self._text[self._at : self._at + 20])
