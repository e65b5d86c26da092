"""What went wrong in a run and what it cost: read from its metrics and restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from calibadv.report.curves import rollbacks
from calibadv.report.reading import RunFiles


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `extra_s`: seconds by which the steps that met it were longer than the median of the others,
    evaluations aside; None where it is not told from the steps."""

    kind: str
    count: int
    steps: tuple[int, ...]
    cost: str
    extra_s: float | None


_COUNTED = (
    ("searches failed for good", "rollout/infra_failed_count", "rollouts were sampled again"),
    ("questions dropped", "rollout/dropped_groups", "questions did not train"),
    ("rewards failed for good", "reward/failed_count", "rollouts were left out with their questions"),
    ("updates skipped", "learner/skipped_updates", "updates with a loss or a gradient that is not finite"),
    ("judge without an answer", "judge/failed", "searches without a verdict"),
)
"""Kind, metric summed over steps, what a unit of it is."""


def faults_of(run: RunFiles) -> list[Fault]:
    """Those that happened."""
    steps = [row for row in run.history if row["step"] > 0]
    found = [
        Fault(kind, round(sum(by_step.values())), tuple(by_step), cost, _extra_s(steps, by_step))
        for kind, metric, cost in _COUNTED
        if (by_step := {int(row["step"]): row[metric] for row in steps if row.get(metric)})
    ]
    deaths, seen = dict[int, float](), 0.0
    for row in steps:
        count = row.get("rollout/engine_deaths", seen)
        died = count - seen if count >= seen else count  # it begins at 0 again with every process
        seen = count
        if died:
            deaths[int(row["step"])] = died
    if deaths:
        cost = "engines were replaced, their rollouts sampled again"
        found.append(Fault("engines died", round(sum(deaths.values())), tuple(deaths), cost, _extra_s(steps, deaths)))
    if undone := rollbacks(run.history):
        cost = "updates were taken back by the sentinel"
        found.append(Fault("roll-backs", len(undone), tuple(undone), cost, None))
    if run.restarts:
        cost = "; ".join(f"{restart.get('time', '')} {restart.get('why', '')}".strip() for restart in run.restarts)
        found.append(Fault("restarts", len(run.restarts), (), cost, None))
    return found


def time_outside_steps(run: RunFiles) -> float | None:
    """Seconds of the run that are in none of its steps: start-up, the first evaluation, and what restarts lost.

    None for a run that has not finished.
    """
    if run.summary is None:
        return None
    within = sum(row.get("time/step_s", 0.0) for row in run.history)
    return max(0.0, float(run.summary["wall_s"]) - within)


def _extra_s(steps: list[Mapping[str, float]], hit: Mapping[int, float]) -> float | None:
    seconds = {
        int(row["step"]): row["time/step_s"] - row.get("time/eval_s", 0.0) for row in steps if "time/step_s" in row
    }
    calm = [value for step, value in seconds.items() if step not in hit]
    met = [seconds[step] for step in hit if step in seconds]
    if not calm or not met:
        return None
    return sum(max(0.0, value - median(calm)) for value in met)
