"""StepSearch's rewards: what each search adds to the evidence, and at the end the answer and its queries.

Search t:  mean over gold passages i of max(c_ti - m_ti, 0)  -  |documents already seen| / |documents|
Last turn: F1 + key weight * key score;   -1, and nothing at the searches, without a closing answer

P gold passages of the question, D distinct documents of a trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from calibadv.rewards.answer import f1
from calibadv.rewards.turns import TurnRewards
from calibadv.types import Document, FloatArray, Group, Question, Trajectory, TurnKind

NO_ANSWER = -1.0


def step_search_rewards(group: Group, documents: Mapping[str, Document], *, key_weight: float = 0.618) -> TurnRewards:
    """StepSearch's reward of every turn (Wang et al. 2025; as its released code computes it), unscaled.

    A search has gain - redundancy in [-1, 1]. The last turn has the answer's F1 + `key_weight` * key score, whatever
    the format reward says; a trajectory without a closing answer has -1 there and 0 everywhere else. A turn that
    neither searches nor ends the trajectory has 0.
    """
    return [_trajectory_rewards(group.question, trajectory, documents, key_weight) for trajectory in group.trajectories]


def key_score(queries: Sequence[str], sub_queries: Sequence[str]) -> float:
    """Mean over the gold sub-queries of the best F1 of any query against it, in [0, 1]; 0 without either of them.

    The released data has a group of paraphrases for each sub-query; here a sub-query is a group of one (our decision).
    """
    if not queries or not sub_queries:
        return 0.0
    return sum(max(f1(query, gold) for query in queries) for gold in sub_queries) / len(sub_queries)


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


def tfidf_cosines(texts: Sequence[str], passages: Sequence[str]) -> FloatArray:
    """Cosine of the TF-IDF vectors of every text and every passage, in [0, 1]. Shape [D, P].

    Fitted on both together, as scikit-learn does by default: smoothed idf, words of two characters or more. A text
    without such a word has cosine 0 with everything.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    cosines = np.zeros((len(texts), len(passages)), dtype=np.float32)
    vectorizer = TfidfVectorizer()
    words = vectorizer.build_analyzer()
    if cosines.size and any(words(text) for text in (*texts, *passages)):  # it refuses an empty vocabulary
        vectors = vectorizer.fit_transform([*texts, *passages])  # of length 1 each, so that products are cosines
        cosines = (vectors[: len(texts)] @ vectors[len(texts) :].T).toarray().astype(np.float32)
    return cosines


def _trajectory_rewards(
    question: Question, trajectory: Trajectory, documents: Mapping[str, Document], key_weight: float
) -> list[float]:
    rewards = [0.0] * len(trajectory.turns)
    if trajectory.answer is None:
        rewards[-1] = NO_ANSWER
        return rewards
    steps = [step for step, turn in enumerate(trajectory.turns) if turn.kind is TurnKind.SEARCH]
    found = [trajectory.turns[step].doc_ids for step in steps]
    distinct = list(dict.fromkeys(doc for ids in found for doc in ids))
    # Fitted on these texts alone, so that an engine needs nothing of the corpus (our decision).
    texts = [f"{documents[doc].title}\n{documents[doc].text}" for doc in distinct]  # as gold passages are written
    cosines = tfidf_cosines(texts, question.gold_passages)
    gains = information_gains(found, dict(zip(distinct, cosines, strict=True)))
    for step, gain, redundancy in zip(steps, gains, redundancies(found), strict=True):
        rewards[step] = gain - redundancy
    queries = [turn.query for turn in trajectory.turns if turn.query is not None]
    rewards[-1] = trajectory.answer_reward + key_weight * key_score(queries, question.sub_queries)
    return rewards
