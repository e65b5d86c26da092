"""Methods side by side on stored groups: how far they agree, whom they blame, and c against the truth.

What `calibadv explain` prints, as a page's data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from calibadv.explain.disagreement import Search, Why, figures, most_disputed, searches_of
from calibadv.explain.judged import judged_of
from calibadv.explain.replay import credited, methods_for, with_known_gold
from calibadv.explain.truth import Truth, truth_by_step, truth_of
from calibadv.report.reading import RunFiles
from calibadv.report.rollouts import Library, Replayed, evenly_spaced, first_groups, group_json
from calibadv.rewards.judge import Endpoint

DISPUTED = 60  # searches that are listed as the most disputed


def compared(run: RunFiles, most_groups: int, judge: Endpoint | None = None) -> dict[str, Any] | None:
    """At most so many of the run's stored groups, evenly over its steps, credited by every method.

    None where none is stored, or none is wanted.
    """
    steps = evenly_spaced(run.groups_steps, most_groups)
    shown, stored_groups = [], 0
    for stored in run.stored(steps):
        stored_groups += len(stored.groups)
        shown.append(first_groups(stored, max(1, most_groups // len(steps))))
    replayed = [
        Replayed(step, columns) for step in with_known_gold(shown) for columns in credited(step, methods_for(step))
    ]
    if not replayed:
        return None
    by_group = [searches_of(of.stored, [of.columns]) for of in replayed]
    searches = [search for of_group in by_group for search in of_group]
    library = Library()
    groups = [group_json(of, of_group, library) for of, of_group in zip(replayed, by_group, strict=True)]
    return {
        "methods": list(replayed[0].columns),
        "stored": {"steps": len(run.groups_steps), "read": len(steps), "groups": stored_groups},
        "searches": len(searches),
        "figures": _figures(searches, replayed),
        "kinds": _kinds(searches),
        "disputed": list(_disputed(searches, by_group)),
        "truth": _truth(truth_of(searches)),
        "truth_by_step": [{"first": a, "last": b, **asdict(of)} for a, b, of in truth_by_step(searches)],
        "judged": _judged(searches, replayed, judge),
        "groups": groups,
        "documents": library.documents,
    }


def _figures(searches: Sequence[Search], replayed: Sequence[Replayed]) -> dict[str, Any]:
    """By method; where there is no search nobody agrees or disagrees."""
    found = {name: asdict(of) for name, of in figures(searches, [of.columns for of in replayed]).items()}
    return found if searches else {name: of | {"agrees": {}} for name, of in found.items()}


def _kinds(searches: Sequence[Search]) -> list[dict[str, Any]]:
    counts = Counter(search.why for search in searches)
    opposed = Counter(search.why for search in searches if search.opposed)
    return [{"name": why.name, "text": str(why), "searches": counts[why], "opposed": opposed[why]} for why in Why]


def _disputed(searches: Sequence[Search], by_group: Sequence[Sequence[Search]]) -> Iterator[list[int]]:
    """[group, rollout, turn] of the searches on which methods disagree most, the most disputed first."""
    group_of = {id(search): g for g, of_group in enumerate(by_group) for search in of_group}
    for search in most_disputed(searches)[:DISPUTED]:
        if search.opposed:
            yield [group_of[id(search)], search.rollout, search.turn]


def _judged(searches: Sequence[Search], replayed: Sequence[Replayed], judge: Endpoint | None) -> list[dict[str, Any]]:
    if judge is None:
        return []
    documents = {of.stored.step: of.stored.documents for of in replayed}
    return [asdict(judged) for judged in judged_of(searches, documents, judge)]


def _truth(truth: Truth | None) -> Mapping[str, Any] | None:
    return None if truth is None else asdict(truth)
