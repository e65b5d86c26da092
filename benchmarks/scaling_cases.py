"""What is measured: the pocket run with one and two engines and learners, as settings of `workflows/train.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from calibadv.config import Config, load_config
from calibadv.memory.shape import model_shape
from calibadv.pocket import policy_path
from workflows.shipped import RECIPES

RECIPE = RECIPES / "pocket.toml"
HEAD = (
    "engines",
    "learners",
    "staleness",
    "rollout s",
    "learn s",
    "sync s",
    "step s",
    "step, of the first",
    "tokens a second",
    "published, MB",
    "peak of a learner, MB",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One division of the work: as many engines and learner processes, which share their state by `zero`.

    With `staleness` 1 engines roll out the next step while learners learn.
    """

    engines: int
    learners: int
    zero: int = 0
    staleness: int = 0

    @property
    def name(self) -> str:
        options = {"zero": self.zero, "staleness": self.staleness}
        named = "".join(f"-{option}-{value}" for option, value in options.items() if value)
        return f"engines-{self.engines}-learners-{self.learners}{named}"


CASES = (Case(1, 1), Case(1, 1, staleness=1), Case(1, 2), Case(1, 2, 2), Case(2, 1), Case(2, 2), Case(2, 2, 2))


def settings_of(case: Case, *, steps: int, questions: int) -> dict[str, Any]:
    """What makes the pocket recipe this case: nothing is saved and hardly anything evaluated. Two updates a step.

    Raises ValueError for fewer steps than two, the first of which is left out, and for an odd number of questions.
    """
    if steps < 2 or questions < 2 or questions % 2:
        raise ValueError(f"steps {steps}, questions {questions}: expected two or more steps, and an even number")
    return {
        "run.steps": steps,
        "data.questions_per_step": questions,
        "data.test_questions": 4,
        "rollout.engines": case.engines,
        "rollout.samples": 5,
        "rollout.max_staleness": case.staleness,
        "learner.minibatch_rollouts": questions * 5 // 2,
        "learner.learners": case.learners,
        "learner.zero": case.zero,
        "evaluation.every": 1000,
        "checkpoint.every": 0,
        "sentinel.action": "off",
        "tracking.sampled_rollouts": 0,
    }


def measured(
    case: Case, given: Mapping[str, Any], metrics: Sequence[Mapping[str, float]], peaks: Sequence[int]
) -> dict[str, Any]:
    """The case's medians over steps, the first left out, and without evaluations; JSON-ready.

    `metrics`: the run's lines in metrics.jsonl. `peaks`: bytes of each learner's largest resident memory. Raises
    ValueError where fewer than two steps were made.
    """
    config = load_config(RECIPE, given)
    steps = [line for line in metrics if "time/step_s" in line][1:]
    if not steps:
        raise ValueError(f"{case.name}: no step after the first is in its metrics.jsonl: see its log")
    seconds = {part: median(line[f"time/{part}_s"] for line in steps) for part in ("rollout", "learn", "sync")}
    whole = [line["time/step_s"] - line["time/eval_s"] for line in steps]
    tokens = [config.rollouts_per_step * line["rollout/tokens"] / took for line, took in zip(steps, whole, strict=True)]
    return {
        "case": case.name,
        "engines": case.engines,
        "learners": case.learners,
        "zero": case.zero,
        "staleness": case.staleness,
        "settings": dict(given),
        "steps": len(steps),
        **{f"{part}_s": value for part, value in seconds.items()},
        "step_s": median(whole),
        "tokens_per_s": median(tokens),
        "published_bytes": published_bytes(config),
        "learner_peak_bytes": max(peaks, default=None),
    }


def published_bytes(config: Config) -> int:
    """Bytes of the pocket policy as it is published: every engine takes as many."""
    return model_shape(str(policy_path())).parameters * (2 if config.model.dtype == "bfloat16" else 4)


def rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a case, steps as ratios to the first case's too."""
    return [
        [
            str(result["engines"]),
            str(result["learners"]) + (f", zero = {result['zero']}" if result["zero"] else ""),
            str(result["staleness"]),
            *(f"{result[f'{part}_s']:.2f}" for part in ("rollout", "learn", "sync", "step")),
            f"{result['step_s'] / results[0]['step_s']:.2f}",
            f"{result['tokens_per_s']:,.0f}",
            f"{result['engines']} x {result['published_bytes'] / 1e6:.1f}",
            "" if result["learner_peak_bytes"] is None else f"{result['learner_peak_bytes'] / 1e6:,.0f}",
        ]
        for result in results
    ]
