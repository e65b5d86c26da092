"""What a trial of a study leaves behind when its run does not finish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibadv.studies.results import State, read_run
from calibadv.training.readiness import Unready
from calibadv.training.sentinel import Collapsed
from tests.studies.plan import make_plan
from workflows.trials import trial


def fails(folder: Path, error: Exception) -> str:
    """The reason that is kept of a run that ends with `error`."""
    plan = make_plan(folder)
    run = plan.runs[0]

    def train(*_: Any, **__: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        trial({"run": run.name}, plan, None, "app", run.config, train=train)
    result = read_run(plan.folder, run)
    assert result.state is State.FAILED
    return result.failure


@pytest.mark.parametrize("end", [Unready("stopped, for it would learn nothing"), Collapsed("stopped at step 6")])
def test_a_run_that_was_stopped_is_reported_in_its_own_words(tmp_path: Path, end: Exception) -> None:
    assert fails(tmp_path, end) == str(end)


def test_a_run_that_crashed_keeps_its_traceback(tmp_path: Path) -> None:
    failure = fails(tmp_path, RuntimeError("it broke"))
    assert failure.startswith("Traceback")
    assert failure.endswith("RuntimeError: it broke")
