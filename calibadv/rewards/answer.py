"""Answer scores: bag-of-words F1, exact and cover match after SQuAD normalisation (CalibAdv sec. 2, Search-R1).

`tokens` says what a word is. "words" is the paper's: what stands between blanks. "unspaced" is for languages that are
written without them: every character of Han, Kana, Thai, Lao, Khmer and Myanmar is a word (`calibadv.unspaced`).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from calibadv.types import TokenUnit
from calibadv.unspaced import spaced

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, tokens: TokenUnit = TokenUnit.WORDS) -> str:
    """`text` in lower case without ASCII punctuation, articles and repeated white space.

    With "unspaced" full-width forms are folded (NFKC), punctuation of any script goes, and a blank stands on each side
    of a character that is a word; for ASCII text there is no difference.
    """
    text = text.lower() if tokens == TokenUnit.WORDS else _without_punctuation(spaced(text).lower())
    return " ".join(_ARTICLES.sub(" ", text.translate(_PUNCTUATION)).split())


def f1(prediction: str, golden: str, tokens: TokenUnit = TokenUnit.WORDS) -> float:
    """Bag-of-words F1 in [0, 1] of two normalised answers. No word in common, or nothing left of either: 0.

    yes/no answers get no special case (spec: as in the paper).
    """
    predicted, gold = normalise(prediction, tokens).split(), normalise(golden, tokens).split()
    common = sum((Counter(predicted) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def exact_match(prediction: str, golden: str, tokens: TokenUnit = TokenUnit.WORDS) -> float:
    """1.0 if the normalised answers are equal, else 0.0."""
    return float(normalise(prediction, tokens) == normalise(golden, tokens))


def cover_em(prediction: str, golden: str, tokens: TokenUnit = TokenUnit.WORDS) -> float:
    """1.0 if the normalised golden answer stands somewhere in the normalised prediction, else 0.0.

    Letters are compared, not words, as Search-R1's sub-EM does: "art" is found in "party", and a golden answer of which
    normalisation leaves nothing is found everywhere. Never below `exact_match`.
    """
    return float(normalise(golden, tokens) in normalise(prediction, tokens))


def best_over_golden(
    prediction: str | None,
    golden_answers: Sequence[str],
    score: Callable[[str, str, TokenUnit], float] = f1,
    tokens: TokenUnit = TokenUnit.WORDS,
) -> float:
    """The best score of `prediction` over all golden answers; 0.0 for a missing prediction."""
    if prediction is None:
        return 0.0
    return max(score(prediction, golden, tokens) for golden in golden_answers)


def can_score(golden_answers: Sequence[str], tokens: TokenUnit = TokenUnit.WORDS) -> bool:
    """Whether normalisation leaves anything of any golden answer: of "the" and "!!!" it leaves nothing, so F1 is 0."""
    return any(normalise(golden, tokens) for golden in golden_answers)


def _without_punctuation(text: str) -> str:
    return text if text.isascii() else "".join(char for char in text if unicodedata.category(char)[0] != "P")
