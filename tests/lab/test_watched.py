import math

import pytest

from calibadv.collapse import Limits
from calibadv.lab.watched import OFF, Watched, first_alarm, first_fall, watched_table


def history(*ppl: float) -> list[dict[str, float]]:
    return [{"step": float(step), "policy/ppl": value, "policy/entropy": 1.0} for step, value in enumerate(ppl, 1)]


RISES = history(2, 2, 2, 2, 2, 3.1, 3.1, 3.1, 5, 5, 5)  # 1.55 times the baseline from step 6 on, 2.5 times from step 9
FALLS = [0.5] * 5 + [0.0] * 6  # means of five steps: 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0
CALM = history(*[2.0] * 11)


@pytest.mark.parametrize(("factor", "step"), [(1.5, 8), (2.4, 11), (3.0, math.nan)])
def test_the_alarm_comes_after_three_steps_beyond_the_limit(factor: float, step: float) -> None:
    assert first_alarm(RISES, Limits.model_validate(OFF | {"ppl_factor": factor})) == pytest.approx(step, nan_ok=True)


def test_runs_named_in_time_late_and_wrongly() -> None:
    table = watched_table(
        [
            Watched(RISES, FALLS, 10.0),
            Watched(RISES, FALLS, 6.0),
            Watched(RISES, [0.5] * 11, math.nan),
            Watched(CALM, FALLS, math.nan),
        ]
    )
    low = table.loc["1.5 x policy/ppl"]
    assert (low["named"], low["of"], low["wrongly"], low["of sound"]) == (2, 2, 1, 2)
    assert (low["lead"], low["least"], low["most"]) == (0.0, -2.0, 2.0)  # steps 10 and 6, said at 8
    high = table.loc["3 x policy/ppl"]
    assert (high["named"], high["wrongly"]) == (0, 0)
    assert math.isnan(high["lead"])
    fall = table.loc["below 0.5 x the best reward/mean"]
    assert (fall["named"], fall["wrongly"], fall["most"]) == (2, 1, 2.0)  # said at step 8


def test_a_fall_is_of_a_mean_from_the_best_mean() -> None:
    assert first_fall(FALLS, 0.5) == 8
    assert first_fall(FALLS, 0.3) == 9
    assert math.isnan(first_fall([0.5, 0.0] * 8, 0.5))  # no mean of five is below 0.2, the best is 0.3
