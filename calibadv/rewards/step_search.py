"""StepSearch's rewards: what each search adds to the evidence, and at the end the answer and its queries.

Search t:  mean over gold passages i of max(c_ti - m_ti, 0)  -  |documents already seen| / |documents|
Last turn: F1 + key weight * key score;   -1, and nothing at the searches, without a closing answer

P gold passages of the question, D documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from calibadv.rewards.answer import f1, normalise
from calibadv.rewards.turns import TurnRewards
from calibadv.types import Document, FloatArray, Group, Question, TokenUnit, Trajectory, TurnKind

NO_ANSWER = -1.0


def step_search_rewards(
    group: Group, documents: Mapping[str, Document], *, key_weight: float = 0.618, normalise_texts: bool = False
) -> TurnRewards:
    """StepSearch's reward of every turn (Wang et al. 2025; as its released code computes it), unscaled.

    A search has gain - redundancy in [-1, 1]; 0 where the question has no gold passages. The last turn has the answer's
    F1 + `key_weight` * key score, whatever the format reward says; a trajectory without a closing answer has -1 there
    and 0 everywhere else. A turn that neither searches nor ends the trajectory has 0.
    """
    found = sorted(group.doc_ids)
    gold, cosines = group.question.gold_passages, None
    if gold:
        texts = [documents[doc].text for doc in found]
        rows = tfidf_cosines(texts, gold, group.question.tokens, normalise_texts=normalise_texts)
        cosines = dict(zip(found, rows, strict=True))
    return [_trajectory_rewards(group.question, trajectory, cosines, key_weight) for trajectory in group.trajectories]


def key_score(queries: Sequence[str], sub_queries: Sequence[str], tokens: TokenUnit = TokenUnit.WORDS) -> float:
    """Mean over the gold sub-queries of the F1 that each was given, in [0, 1]; 0 without either of them.

    Each query goes to the sub-query that it fits best (the first of equals) and overwrites what an earlier one left
    there; one that fits none goes nowhere. The released data has a group of paraphrases for each sub-query; here a
    sub-query is a group of one (our decision).
    """
    if not queries or not sub_queries:
        return 0.0
    scores = [0.0] * len(sub_queries)
    for query in queries:
        fits = [f1(query, gold, tokens) for gold in sub_queries]
        if (best := max(fits)) > 0:
            scores[fits.index(best)] = best
    return sum(scores) / len(scores)


def information_gains(searches: Sequence[Sequence[str]], cosines: Mapping[str, FloatArray]) -> list[float]:
    """Mean over gold passages of max(c - m, 0) for each search, given the document ids that each found.

    c is the best cosine [P] of the search's documents, m the best of all earlier searches; both are 0 without
    documents. `cosines` holds the row [P] of each document. A search without documents, or P = 0: 0.
    """
    gains, best_P = [], 0.0
    for found in searches:
        if not found or not len(cosines[found[0]]):
            gains.append(0.0)
            continue
        now_P = np.max([cosines[doc] for doc in found], axis=0)
        gains.append(float(np.maximum(now_P - best_P, 0).mean()))
        best_P = np.maximum(now_P, best_P)
    return gains


def redundancies(searches: Sequence[Sequence[str]]) -> list[float]:
    """Share of each search's distinct documents that an earlier search found, in [0, 1]; 0 without documents."""
    shares, seen = [], set[str]()
    for found in searches:
        distinct = set(found)
        shares.append(len(distinct & seen) / len(distinct) if distinct else 0.0)
        seen |= distinct
    return shares


def tfidf_cosines(
    texts: Sequence[str],
    passages: Sequence[str],
    tokens: TokenUnit = TokenUnit.WORDS,
    *,
    normalise_texts: bool = False,
) -> FloatArray:
    """Cosine of the TF-IDF vectors of every document's text and every gold passage, in [0, 1]. Shape [D, P].

    As the released code: scikit-learn's vectorizer, fitted anew for each document, on it and the gold passages alone;
    texts without titles; smoothed idf, lower case, words of two characters or more. `normalise_texts`: as answers are,
    first; with "unspaced" tokens always, and all of them count. A text without a word has cosine 0 with everything.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    cosines_DP = np.zeros((len(texts), len(passages)), dtype=np.float32)
    vectorizer = TfidfVectorizer() if tokens == TokenUnit.WORDS else TfidfVectorizer(token_pattern=r"\S+")
    words = vectorizer.build_analyzer()
    if normalise_texts or tokens != TokenUnit.WORDS:
        texts, passages = ([normalise(text, tokens) for text in given] for given in (texts, passages))
    for row_P, text in zip(cosines_DP, texts, strict=True):
        if passages and words(text):  # it refuses an empty vocabulary
            vectors = vectorizer.fit_transform([text, *passages])  # of length 1 each, so that products are cosines
            row_P[:] = (vectors[:1] @ vectors[1:].T).toarray()[0]
    return cosines_DP


def _trajectory_rewards(
    question: Question, trajectory: Trajectory, cosines: Mapping[str, FloatArray] | None, key_weight: float
) -> list[float]:
    rewards = [0.0] * len(trajectory.turns)
    if trajectory.answer is None:
        rewards[-1] = NO_ANSWER
        return rewards
    steps = [step for step, turn in enumerate(trajectory.turns) if turn.kind is TurnKind.SEARCH]
    if cosines is not None:
        found = [trajectory.turns[step].doc_ids for step in steps]
        for step, gain, redundancy in zip(steps, information_gains(found, cosines), redundancies(found), strict=True):
            rewards[step] = gain - redundancy
    queries = [turn.query for turn in trajectory.turns if turn.query is not None]
    rewards[-1] = trajectory.answer_reward + key_weight * key_score(queries, question.sub_queries, question.tokens)
    return rewards
