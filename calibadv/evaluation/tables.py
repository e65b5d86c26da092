"""table.md and table.csv of a folder of evaluations: a row a model, a column a benchmark and their mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from calibadv.evaluation.figures import Estimate, Part
from calibadv.evaluation.results import ModelResult, SetResult
from calibadv.files import write_text
from calibadv.tables import markdown

NONE = "–"  # not asked, or nothing to take a mean of

_LEGEND = """\
Greedy answers to every question. F1, EM, cover-EM and format × 100, means over questions; the mean is that of the
benchmarks, each weighing the same, and is left out where a model was not asked all of them. 95 %: bootstrap interval
over questions. Searches and sampled tokens a question; high PPL: outputs of perplexity above 50, in %. Infra-failed:
questions that the search failed for good, which are in no mean."""


def write_tables(results: Sequence[ModelResult], out: Path, sets_first: Sequence[str] = ()) -> list[Path]:
    """Write table.md and table.csv (scores in [0, 1]); columns are `sets_first`, then the other sets by name."""
    found = {name for result in results for name in result.sets}
    sets = [*(name for name in sets_first if name in found), *sorted(found - set(sets_first))]
    means = {result.name: result.mean(sets) for result in results}
    numbers = pd.DataFrame([_csv_row(result, sets, means[result.name]) for result in results])
    return [
        write_text(out / "table.md", _markdown(results, sets, means)),
        write_text(out / "table.csv", numbers.to_csv(index=False)),
    ]


def _markdown(results: Sequence[ModelResult], sets: Sequence[str], means: Mapping[str, Estimate | None]) -> str:
    def f1(text: Callable[[Estimate | None], str]) -> pd.DataFrame:
        """A row a model, a column a benchmark and their mean."""
        return pd.DataFrame(
            {"model": result.name}
            | {name: text(_estimate(result, name, "f1")) for name in sets}
            | {"mean": text(means[result.name])}
            for result in results
        )

    done = [(result, result.sets[name]) for result in results for name in sets if name in result.sets]
    sections = [
        ("F1", f1(_percent)),
        ("95 % intervals of F1", f1(_interval)),
        ("All figures", pd.DataFrame(_figures_row(result, of_set) for result, of_set in done)),
        ("F1 by hops", _parts_table(done, lambda of_set: of_set.figures.by_hops, "{}-hop")),
        ("F1 by type", _parts_table(done, lambda of_set: of_set.figures.by_type, "{}")),
    ]
    parts = ["# Evaluation", _LEGEND]
    for title, table in sections:
        parts += [f"## {title}", markdown(table, ("model", "benchmark"))] if len(table) else []
    return "\n\n".join(parts) + "\n"


def _figures_row(result: ModelResult, of_set: SetResult) -> dict[str, str]:
    f = of_set.figures
    return {
        "model": result.name,
        "benchmark": of_set.name,
        "questions": str(f.questions),
        "F1": _percent(f.f1),
        "EM": _percent(f.em),
        "EM 95 %": _interval(f.em),
        "cover-EM": _percent(f.cover_em),
        "cover-EM 95 %": _interval(f.cover_em),
        "format": _percent(f.format),
        "searches": _number(f.searches, 2),
        "tokens": _number(f.tokens, 1),
        "high PPL": NONE if f.high_ppl_ratio is None else f"{100 * f.high_ppl_ratio:.2f}",
        "truncated": str(f.truncated),
        "infra-failed": str(f.infra_failed),
    }


def _parts_table(
    done: Sequence[tuple[ModelResult, SetResult]], parts_of: Callable[[SetResult], Mapping[str, Part]], heading: str
) -> pd.DataFrame:
    """A row a model and benchmark that says its parts, a column a part: F1 and, in brackets, how many questions."""
    names = dict.fromkeys(part for _, of_set in done for part in parts_of(of_set))
    columns = sorted(names, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
    rows = [
        {"model": result.name, "benchmark": of_set.name}
        | {heading.format(_escaped(name)): _part(parts.get(name)) for name in columns}
        for result, of_set in done
        if (parts := parts_of(of_set))
    ]
    return pd.DataFrame(rows)


def _csv_row(result: ModelResult, sets: Sequence[str], mean: Estimate | None) -> dict[str, object]:
    row: dict[str, object] = {"model": result.name}
    estimates = {name: _estimate(result, name, "f1") for name in sets} | {"mean": mean}
    row |= {name: None if estimate is None else estimate.mean for name, estimate in estimates.items()}
    for name, estimate in estimates.items():
        row |= {f"{name}/f1_{end}": getattr(estimate, end, None) for end in ("low", "high")}
    for name in sets:
        metrics = result.sets[name].figures.metrics() if name in result.sets else {}
        row |= {f"{name}/{metric}": metrics.get(metric) for metric in _CSV_METRICS}
    return row


_CSV_METRICS = (
    *("em", "em_low", "em_high", "cover_em", "cover_em_low", "cover_em_high", "format", "format_low", "format_high"),
    *("searches", "tokens", "high_ppl_ratio", "questions", "truncated", "infra_failed"),
)


def _estimate(result: ModelResult, name: str, score: str) -> Estimate | None:
    of_set = result.sets.get(name)
    estimate: Estimate | None = getattr(of_set.figures, score) if of_set else None
    return estimate


def _percent(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{100 * estimate.mean:.2f}"


def _interval(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _part(part: Part | None) -> str:
    return NONE if part is None else f"{100 * part.f1:.2f} ({part.questions})"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
