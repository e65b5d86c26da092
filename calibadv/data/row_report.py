"""Says what became of the rows of the files that a command reads."""

from __future__ import annotations

import logging
from pathlib import Path

from calibadv.data.tally import Tally
from calibadv.types import TokenUnit

log = logging.getLogger(__name__)

_SHOWN = 3  # questions named in a warning
_MANY = 0.1  # of the questions; single names in other scripts stand in most sets


def say_rows(what: str, path: Path | str, tally: Tally, tokens: TokenUnit = TokenUnit.WORDS) -> None:
    """Logs the counts of a file, and warns of questions to which no answer can score and of scores that do not fit."""
    assert tally.rows == tally.read + tally.refused + tally.left_out.total(), f"{path}: {tally}"
    log.info("%s: %s: %s", what, path, tally)
    if tally.unscorable:
        more = len(tally.unscorable) - _SHOWN
        log.warning(
            "%s: normalisation leaves nothing of the golden answers of %d questions, so that no answer to them can "
            "score: %s%s; drop them, or give them another answer",
            path,
            len(tally.unscorable),
            ", ".join(tally.unscorable[:_SHOWN]),
            f" and {more} more" if more > 0 else "",
        )
    if tokens == TokenUnit.WORDS and tally.unspaced > _MANY * tally.read:
        log.warning(
            "%s: %d of %d questions hold text of a script without blanks between words (Chinese, Japanese, Thai, ...), "
            "whose answers are compared as whole words: set reward.tokens = 'unspaced', and search.tokens for BM25",
            path,
            tally.unspaced,
            tally.read,
        )
