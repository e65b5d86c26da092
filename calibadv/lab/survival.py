"""How long the runs of a cell last before an event: the Kaplan-Meier curve, and the log-rank test against another's.

Q runs of a cell, one a seed. A run in which the event does not come is censored at its last step.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from calibadv.evaluation.figures import Doubles

EVENTS = {"collapsed_at": "collapse", "garbled_at": "garbling"}


def times(figures: pd.DataFrame, event: str) -> stats.CensoredData:
    """The step of each run's event; of a run without one its number of steps, from which on nothing is known."""
    at_Q, steps_Q = figures[event].to_numpy(float), figures["steps"].to_numpy(float)
    came_Q = ~np.isnan(at_Q)
    return stats.CensoredData(uncensored=at_Q[came_Q], right=steps_Q[~came_Q])


def survival(figures: pd.DataFrame, event: str) -> tuple[Doubles, Doubles]:
    """Steps and the share of runs that have lasted beyond each (Kaplan & Meier 1958), from (0, 1) on."""
    curve = stats.ecdf(times(figures, event)).sf
    return np.concatenate([[0.0], curve.quantiles]), np.concatenate([[1.0], curve.probabilities])


def log_rank(figures: pd.DataFrame, cell: str, baseline: str, event: str) -> float:
    """The two-sided p of the log-rank test (Mantel 1966); nan where neither cell has an event: nothing to compare."""
    ours, theirs = (figures[figures["cell"] == name] for name in (cell, baseline))
    if not (ours[event].notna().any() or theirs[event].notna().any()):
        return float("nan")
    return float(stats.logrank(times(ours, event), times(theirs, event)).pvalue)


def at_best(figures: pd.DataFrame, cell: str, baseline: str, event: str) -> float:
    """The p that the cell could still reach: as many runs as the baseline's, and each one more without the event.

    Above the level that was registered the question is settled, whatever further runs would say. The plain p where no
    run is left; nan where the baseline has no event: nothing to last longer than.
    """
    theirs = figures[figures["cell"] == baseline]
    if not theirs[event].notna().any():
        return float("nan")
    left = len(theirs) - (figures["cell"] == cell).sum()
    lasting = pd.DataFrame({"cell": cell, "steps": theirs["steps"].max(), event: float("nan")}, index=range(left))
    return log_rank(pd.concat([figures, lasting]) if left > 0 else figures, cell, baseline, event)
