"""Format reward: 1 only for `think (search information think)+ answer`, nothing else around (CalibAdv sec. 2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from calibadv.tags import TAGS
from calibadv.types import Turn, TurnKind

_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_BLOCKS = {
    kind: re.compile(rf"\s*<think>(.*?)</think>\s*<{kind}>(.*?)</{kind}>\s*", re.DOTALL)
    for kind in (TurnKind.SEARCH, TurnKind.ANSWER)
}


def format_reward(turns: Sequence[Turn], *, prefill: str = "", require_search: bool = True) -> float:
    """1.0 or 0.0. Every turn but the last is think + search, the last is think + answer, with only white space between.

    `prefill` is what the environment wrote before each turn (PreThink's `<think>`): it belongs to the turn here.
    `require_search = False` also accepts a think + answer without any search. No turns: 0.0.
    """
    if len(turns) < 1 + require_search:
        return 0.0
    kinds = [TurnKind.SEARCH] * (len(turns) - 1) + [TurnKind.ANSWER]
    return float(all(_well_formed(turn, kind, prefill) for turn, kind in zip(turns, kinds, strict=True)))


def _well_formed(turn: Turn, kind: TurnKind, prefill: str) -> bool:
    match = _BLOCKS[kind].fullmatch(f"{prefill}{turn.text}")
    return turn.kind is kind and match is not None and not any(_TAG.search(block) for block in match.groups())
