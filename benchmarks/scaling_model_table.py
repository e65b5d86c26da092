"""The modelled step of a 7B policy on one node and on eight, beside the time that the paper reports, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.scaling_model import H20, H100, Assumptions, Gpu, Layout, StepModel, StepTime, Work
from calibadv.config import Config
from calibadv.memory.shape import ModelShape, model_shape
from calibadv.tables import markdown_rows

MODEL = "Qwen/Qwen2.5-7B"
PAPER_GPU, PAPER_GPUS, PAPER_S = H20, 8, 809.0  # CalibAdv appendix G
HEAD = ("GPUs", "engines + learners", "staleness", "rollout s", "learn s", "sync s", "step s", "longest", "of 809 s")
PARTS_HEAD = ("phase", "spent on", "8 x H20", "8 x H100", "64 x H20", "64 x H100")
GAP_HEAD = ("alone changed", "assumed", "for 809 s", "for 809 s with old log-probs again")
# The paper's hardware with old log-probs computed by the learners, as trainers of Search-R1's kind do.
AGAIN = Layout(PAPER_GPUS, PAPER_GPUS, colocated=True, forwards=1)


def model_tables() -> str:
    """Three tables: steps by GPUs and layout, what colocated phases are spent on, and what would make it 809 s."""
    shape = model_shape(MODEL)
    return "\n".join(
        [
            markdown_rows(HEAD, step_rows(shape)),
            markdown_rows(PARTS_HEAD, part_rows(shape)),
            markdown_rows(GAP_HEAD, gap_rows(shape)),
        ]
    )


def recipe_step(config: Config, gpu: Gpu) -> StepTime:
    """The step of one of the paper's recipes on such GPUs (docs/eight-gpus.md)."""
    learner = config.learner
    layout = Layout(
        config.rollout.engines,
        learner.learners,
        zero=3 if learner.zero else 0,
        staleness=config.rollout.max_staleness,
        retrievers=config.search.replicas,
    )
    return StepModel(model_shape(config.model.path), gpu).step(layout)


def step_rows(shape: ModelShape) -> list[list[str]]:
    """A row for each kind and number of GPUs and each layout; the ratio where kind and number are the paper's."""
    rows = []
    for gpu in (H20, H100):
        model = StepModel(shape, gpu)
        for gpus in (8, 64):
            papers = (gpu, gpus) == (PAPER_GPU, PAPER_GPUS)
            again = [("colocated, old log-probs again", AGAIN)] if papers else []
            for said, layout in [*layouts(model, gpus), *again]:
                step = model.step(layout)
                seconds = (step.rollout.seconds, step.learn.seconds, step.sync.seconds, step.seconds)
                rows.append(
                    [
                        f"{gpus} x {gpu.name}",
                        said,
                        str(layout.staleness),
                        *(f"{value:.0f}" for value in seconds),
                        step.bound,
                        f"{step.seconds / PAPER_S:.2f}" if papers else "",
                    ]
                )
    return rows


def layouts(model: StepModel, gpus: int) -> Iterator[tuple[str, Layout]]:
    """Half and half, without and with overlap; the fastest split with overlap; and all GPUs for both in turns."""
    yield split(gpus // 2, gpus, 0)
    yield split(gpus // 2, gpus, 1)
    splits = (split(engines, gpus, 1) for engines in range(1, gpus))
    yield min(splits, key=lambda case: model.step(case[1]).seconds)
    yield "colocated", colocated(gpus)


def split(engines: int, gpus: int, staleness: int) -> tuple[str, Layout]:
    """Each GPU for an engine or for a learner, and a retriever for each eight."""
    learners = gpus - engines
    return f"{engines} + {learners}", Layout(engines, learners, staleness=staleness, retrievers=gpus // 8)


def colocated(gpus: int) -> Layout:
    """Engines and learners in turns on all GPUs."""
    return Layout(gpus, gpus, colocated=True, retrievers=gpus // 8)


def part_rows(shape: ModelShape) -> list[list[str]]:
    """What each phase is spent on in seconds, colocated; parts that take no time anywhere are left out."""
    steps = [StepModel(shape, gpu).step(colocated(gpus)) for gpus in (8, 64) for gpu in (H20, H100)]
    return [
        [phase, part, *(f"{getattr(step, phase).parts[part]:.1f}" for step in steps)]
        for phase in ("rollout", "learn", "sync")
        for part in getattr(steps[0], phase).parts
        if any(getattr(step, phase).parts[part] >= 0.05 for step in steps)
    ]


def gap_rows(shape: ModelShape) -> list[list[str]]:
    """For each assumption, the value at which it alone, all others kept, makes the paper's 809 s on its hardware."""
    changes = (
        ("learner_mfu", "share of the peak that learners reach", 0.05, 0.95),
        ("searches_per_s", "searches a second", 1.0, 1000.0),
        ("search_s", "latency of a search, s", 0.0, 1000.0),
        ("action_tokens", "tokens a turn", 10.0, 1024.0),
        ("observation_tokens", "tokens an observation", 10.0, 2048.0),
        ("turns", "turns of the mean rollout", 1.0, 5.0),
    )
    return [
        [
            said,
            f"{getattr(Work(), name, getattr(Assumptions(), name, 0)):g}",
            *(solved(shape, layout, name, low, high) for layout in (colocated(PAPER_GPUS), AGAIN)),
        ]
        for name, said, low, high in changes
    ]


def solved(shape: ModelShape, layout: Layout, name: str, low: float, high: float) -> str:
    """The value of the assumption in [low, high] for which the step takes the paper's time, by bisection; or "none"."""

    def over(value: float) -> bool:
        return changed(shape, layout, name, value).seconds > PAPER_S

    start = over(low)
    if over(high) == start:
        return "none"
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if over(middle) == start else (low, middle)
    return f"{low:.3g}"


def changed(shape: ModelShape, layout: Layout, name: str, value: float) -> StepTime:
    """The step on the paper's GPUs with one assumption of another value."""
    changes: dict[str, Any] = {name: value}
    if hasattr(Work(), name):
        return StepModel(shape, PAPER_GPU, work=replace(Work(), **changes)).step(layout)
    return StepModel(shape, PAPER_GPU, assumed=replace(Assumptions(), **changes)).step(layout)
