"""Answer scores: bag-of-words F1, exact and cover match after SQuAD normalisation (CalibAdv sec. 2, Search-R1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """`text` in lower case without ASCII punctuation, articles and repeated white space."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def f1(prediction: str, golden: str) -> float:
    """Bag-of-words F1 in [0, 1] of two normalised answers. No word in common, or nothing left of either: 0.

    yes/no answers get no special case (spec: as in the paper).
    """
    predicted, gold = normalise(prediction).split(), normalise(golden).split()
    common = sum((Counter(predicted) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def exact_match(prediction: str, golden: str) -> float:
    """1.0 if the normalised answers are equal, else 0.0."""
    return float(normalise(prediction) == normalise(golden))


def cover_em(prediction: str, golden: str) -> float:
    """1.0 if the normalised golden answer stands somewhere in the normalised prediction, else 0.0.

    Letters are compared, not words, as Search-R1's sub-EM does: "art" is found in "party", and a golden answer of which
    normalisation leaves nothing is found everywhere. Never below `exact_match`.
    """
    return float(normalise(golden) in normalise(prediction))


def best_over_golden(
    prediction: str | None, golden_answers: Sequence[str], score: Callable[[str, str], float] = f1
) -> float:
    """The best score of `prediction` over all golden answers; 0.0 for a missing prediction."""
    if prediction is None:
        return 0.0
    return max(score(prediction, golden) for golden in golden_answers)
