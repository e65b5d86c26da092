"""When a run collapsed: a clear, sustained fall of its F1.

K steps of a run. Shape suffix W: one mean for each window of consecutive steps, named by the step it starts at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_F1 = 0.1  # our decision: below it a step's sampling error is about as large as the value itself


def collapse_step(
    values: Sequence[float], window: int | None = None, fall: float = 0.5, minimum: float = LEAST_F1
) -> int | None:
    """Index of the first value of a clear, sustained fall of a curve (F1 in [0, 1], a value a step); None without one.

    Clear: a window's mean is below (1 - fall) times the best window's so far. Sustained: so is every later window's, up
    to the curve's end. The index is the first value of those windows that is itself below that bound; a window of
    values at least must lie from there on. `window` None: min(10, max(3, K // 5)). A curve of less than two windows, or
    whose best window is below `minimum`, cannot collapse.
    The paper says "clear, sustained fall"; the numbers are our decision. A slow decline counts once half is lost, a
    dip that recovers does not. ValueError for a window below 1, a fall outside (0, 1) or a minimum of 0 or less.
    """
    width = min(10, max(3, len(values) // 5)) if window is None else window
    if width < 1 or not 0 < fall < 1 or minimum <= 0:
        raise ValueError(
            f"window = {width}, fall = {fall}, minimum = {minimum}: expected 1 at least, a share in (0, 1), above 0"
        )
    if len(values) < 2 * width:
        return None
    curve = np.asarray(values, dtype=np.float64)
    means_W = np.lib.stride_tricks.sliding_window_view(curve, width).mean(axis=1)
    best_W = np.maximum.accumulate(means_W)
    below_W = (means_W < (1 - fall) * best_W) & (best_W >= minimum)
    if not below_W[-1]:
        return None
    # The first window is its own best, so that one above the bound always exists.
    start = int(np.flatnonzero(~below_W)[-1]) + 1
    first = start + int(np.argmax(curve[start:] < (1 - fall) * best_W[start]))
    return first if first + width <= len(curve) else None
