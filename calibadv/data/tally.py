"""What became of the rows of a data file: read, refused, or left out for a reason, and never lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

UNANSWERABLE = "unanswerable"
REPEATED = "repeating an earlier one"


@dataclass
class Tally:
    """Counts of one reading. `rows == read + refused + sum(left_out.values())` once the file is read."""

    rows: int = 0  # that the file has; blank lines are none
    read: int = 0
    refused: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # by reason
    unscorable: list[str] = field(default_factory=list)  # questions that were read, but no answer to them can score
    unspaced: int = 0  # questions that were read and hold text of `calibadv.unspaced`

    def refuse(self, number: int = 1) -> None:
        """So many of the rows that were counted as read are refused after all."""
        self.read -= number
        self.refused += number

    def leave_out(self, reason: str, number: int = 1) -> None:
        """So many of the rows that were counted as read are left out after all."""
        self.read -= number
        self.left_out[reason] += number

    def __str__(self) -> str:
        reasons = [f"{count:,} left out ({reason})" for reason, count in self.left_out.items() if count]
        return ", ".join([f"{self.rows:,} rows: {self.read:,} read", f"{self.refused:,} refused", *reasons])
