import math
from collections.abc import Sequence

import pytest

from calibadv.alarms import Limits
from calibadv.lab.watched import OFF, Watched, first_alarm, watched_table


def history(*ppl: float, rewards: Sequence[float] = ()) -> list[dict[str, float]]:
    rows = [{"step": float(step), "policy/ppl": value, "policy/entropy": 1.0} for step, value in enumerate(ppl, 1)]
    return [row | {"reward/mean": reward} for row, reward in zip(rows, rewards or [0.5] * len(rows), strict=True)]


PPL = (2, 2, 2, 2, 2, 3.1, 3.1, 3.1, *[5] * 14)  # 1.55 times the baseline from step 6 on, 2.5 times from step 9
REWARDS = [0.5] * 10 + [0.0] * 12  # means of ten steps: 0.5 at step 10, 0.45 at step 11, ... 0 at step 20
RISES = history(*PPL)
RISES_AND_FALLS = history(*PPL, rewards=REWARDS)
FALLS = history(*[2.0] * 22, rewards=REWARDS)


@pytest.mark.parametrize(("factor", "step"), [(1.5, 8), (2.4, 11), (3.0, math.nan)])
def test_the_alarm_comes_after_three_steps_beyond_the_limit(factor: float, step: float) -> None:
    assert first_alarm(RISES, Limits.model_validate(OFF | {"ppl_factor": factor})) == pytest.approx(step, nan_ok=True)


def test_runs_named_in_time_late_and_wrongly() -> None:
    table = watched_table(
        [
            Watched(RISES_AND_FALLS, 10.0),
            Watched(RISES_AND_FALLS, 6.0),
            Watched(RISES, math.nan),
            Watched(FALLS, math.nan),
        ]
    )
    low = table.loc["1.5 x policy/ppl"]
    assert (low["named"], low["of"], low["wrongly"], low["of sound"]) == (2, 2, 1, 2)
    assert (low["lead"], low["least"], low["most"]) == (0.0, -2.0, 2.0)  # steps 10 and 6, said at 8
    high = table.loc["3 x policy/ppl"]
    assert (high["named"], high["wrongly"]) == (0, 0)
    assert math.isnan(high["lead"])
    fall = table.loc["below 0.5 x the best reward/mean"]
    assert (fall["named"], fall["wrongly"], fall["most"]) == (2, 1, -6.0)  # said at step 16


@pytest.mark.parametrize(("share", "step"), [(0.5, 16), (0.3, 18)])
def test_a_fall_is_of_a_mean_from_the_best_mean(share: float, step: int) -> None:
    assert first_alarm(FALLS, Limits.model_validate(OFF | {"reward_fall": share})) == step
