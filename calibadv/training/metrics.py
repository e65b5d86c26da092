"""What a step is reported as: metrics of its groups and of its time, and the sampled rollouts with their credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from calibadv.advantages.silver import silver_documents
from calibadv.diagnostics import group_metrics
from calibadv.evaluation.figures import f1_by_benchmark, means
from calibadv.evaluation.prediction import Prediction, predict
from calibadv.methods import Method
from calibadv.methods.rows import step_base
from calibadv.rllib.env_runner import StepSample
from calibadv.tracking.record import RolloutRecord, record_rollout
from calibadv.types import Credit, Group


def sample_metrics(sample: StepSample, method: Method, credit: Mapping[str, Credit]) -> dict[str, float]:
    """Every diagnostic of the step's groups, and how the environment and the engines did.

    `credit`: the advantages that trained, by question id.
    """
    groups = sample.groups
    metrics = group_metrics(
        groups,
        list(map(step_base(groups, method), groups)),
        [credit[group.question.id] for group in groups],
        [method.scores(group) for group in groups],
        [silver_documents(group) for group in groups],
    )
    rows = sample.engine_rows
    counts = {name: float(value) for name, value in sample.counts.items()}
    # What the step's groups do not have, and what was paid for all the same.
    metrics["rollout/tokens_sampled"] += counts.get("rollout/spare_tokens", 0.0)
    return (
        metrics
        | counts
        | {
            "rollout/infra_failed_count": float(sample.infra_failed),
            "rollout/dropped_groups": float(sample.dropped_groups),
            "rollout/engine_share_max": max(rows.values()) / rows.total(),
            "rollout/engine_deaths": float(sample.engine_deaths),
            "rollout/staleness": fmean(sample.staleness),
            "rollout/mixed_questions": float(sample.mixed),
        }
    )


def time_metrics(seconds: Mapping[str, float], wall_s: float, tokens: float) -> dict[str, float]:
    """Seconds by activity, what is left over as `time/other_s`, and tokens a second of the whole step."""
    parts = {name: seconds.get(name, 0.0) for name in ("rollout", "learn", "sync", "eval")}
    parts["other"] = max(0.0, wall_s - sum(parts.values()))
    metrics = {f"time/{name}_s": value for name, value in parts.items()} | {"time/step_s": wall_s}
    if wall_s > 0:
        metrics["rollout/tokens_per_s"] = tokens / wall_s
    return metrics


def evaluation_metrics(answers: Sequence[Prediction]) -> dict[str, float]:
    """Means of greedy answers over questions, each in [0, 1] but searches and tokens; F1 by data set if of several."""
    of_all = means(answers)
    return {
        **{f"eval/{name}": of_all[name] for name in ("f1", "em", "format", "searches")},
        "eval/action_tokens": of_all["tokens"],
        "eval/questions": float(len(answers)),
        **{f"eval/f1_{name}": f1 for name, f1 in f1_by_benchmark(answers).items()},
    }


def predictions(groups: Sequence[Group]) -> list[Prediction]:
    """Each question of a greedy evaluation with its answer and scores, in question order."""
    return [predict(group.question, group.trajectories[0]) for group in groups]


def sampled_records(sample: StepSample, method: Method, credit: Mapping[str, Credit], step: int) -> list[RolloutRecord]:
    """All rollouts of the sampled groups, with their documents, scores and advantages before and after."""
    records, base = [], step_base(sample.groups, method)
    for group in (sample.groups[index] for index in sample.sampled):
        before, after, scores = base(group), credit[group.question.id], method.scores(group)
        silver = silver_documents(group)
        records += [
            record_rollout(
                group,
                index,
                step=step,
                documents=sample.documents,
                scores=scores[index],
                before=before[index],
                after=after[index],
                silver=silver,
            )
            for index in range(len(group.trajectories))
        ]
    return records


def most_changed(records: Sequence[RolloutRecord]) -> RolloutRecord | None:
    """The record in which calibration changed the most advantage; None without records."""

    def change(record: RolloutRecord) -> float:
        return sum(
            abs(turn.advantage - turn.advantage_before)
            for turn in record.turns
            if turn.advantage is not None and turn.advantage_before is not None
        )

    return max(records, key=change, default=None)
