"""What came of all the passages that a model was asked about, in numbers and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from calibadv.authoring.checks import Fate


@dataclass
class Report:
    """What came of it all."""

    fates: Counter[Fate] = field(default_factory=Counter)
    ranks: list[int | None] = field(default_factory=list)  # of every gold passage that was searched
    hops: Counter[int] = field(default_factory=Counter)  # of the questions that were kept
    stopped: str = ""  # why before the wanted number; "": it is reached

    def recall(self, at: int | None = None) -> float:
        """The share of searched gold passages at most `at` from the top, or found at all; 0 where none was searched."""
        hits = sum(rank is not None and (at is None or rank <= at) for rank in self.ranks)
        return hits / len(self.ranks) if self.ranks else 0.0

    def told_fates(self) -> str:
        """How many groups of passages met each fate, the commonest first."""
        return ", ".join(f"{count} {fate}" for fate, count in self.fates.most_common()) or "none was asked about"

    def told(self, top_k: int) -> list[str]:
        """A line each on fates, on how well the search finds gold passages, and on the hops of what was kept."""
        first, found = 100 * self.recall(1), 100 * self.recall()
        return [
            f"of {self.fates.total()} groups of passages: {self.told_fates()}",
            f"gold passages by their step's search: {first:.0f}% first, {found:.0f}% of the first {top_k} "
            f"({len(self.ranks)} searched)",
            f"kept by hops: {', '.join(f'{hops}: {count}' for hops, count in sorted(self.hops.items()))}",
        ]
