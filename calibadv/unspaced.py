"""What a word is made of in any script, and text of scripts without blanks between words cut into characters."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from itertools import groupby

_RANGES = (
    r"\u0e00-\u0eff"  # Thai, Lao
    r"\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    r"\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    r"\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    r"\u3000-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # punctuation of Han and Kana, Kana
    r"\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
)
UNSPACED = re.compile(f"[{_RANGES}]")
"""One character of such a script; its punctuation too."""

_NO_LETTERS = re.compile(r"[\u200b\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # zero-width blanks, variants of a glyph

_JOINERS = "\u200c\u200d"


def in_word(char: str) -> bool:
    """Whether a word goes on in this character: `\\w`, a combining mark (a vowel of Hindi), or a joiner."""
    return char.isalnum() or char in ("_", *_JOINERS) or unicodedata.category(char)[0] == "M"


@cache
def word_pattern() -> str:
    """Whole words, for `re`: runs of what is `in_word` that begin with `\\w`.

    The look-ahead keeps ASCII text away from the hundreds of ranges of marks: there it is as fast as `\\b\\w+\\b`.
    """
    marks = [ord(joiner) for joiner in _JOINERS]
    marks += [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M"]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(marks), lambda placed: placed[1] - placed[0])]
    ranges = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
    return rf"\w+(?:(?=[^\x00-\x7f])[{ranges}]+\w*)*"


def spaced(text: str) -> str:
    """`text` in compatible characters (NFKC) with each character of an unspaced script as a word of its own.

    So full-width letters are Latin ones, and runs of other scripts stay words. The punctuation of these scripts becomes
    a blank, as does a zero-width one.
    """
    text = _NO_LETTERS.sub(lambda found: " " if found[0] == "\u200b" else "", unicodedata.normalize("NFKC", text))
    return UNSPACED.sub(lambda found: f" {found[0]} " if unicodedata.category(found[0])[0] != "P" else " ", text)
