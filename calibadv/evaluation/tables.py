"""table.md and table.csv of a folder of evaluations: a row a model, a column a benchmark and their mean."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from calibadv.evaluation.figures import Estimate, Part
from calibadv.evaluation.results import ModelResult, SetResult
from calibadv.files import whole_file, write_text

NONE = "–"  # not asked, or nothing to take a mean of

_LEGEND = """\
Greedy answers to every question. F1, EM, cover-EM and format × 100, means over questions; the mean is that of the
benchmarks, each weighing the same, and is left out where a model was not asked all of them. 95 %: bootstrap interval
over questions. Searches and sampled tokens a question; high PPL: outputs of perplexity above 50, in %. Infra-failed:
questions that the search failed for good, which are in no mean."""

Cells = Mapping[str, str]  # column -> text


def write_tables(results: Sequence[ModelResult], out: Path, sets_first: Sequence[str] = ()) -> list[Path]:
    """Write table.md and table.csv (scores in [0, 1]); columns are `sets_first`, then the other sets by name."""
    found = {name for result in results for name in result.sets}
    sets = [*(name for name in sets_first if name in found), *sorted(found - set(sets_first))]
    means = {result.name: result.mean(sets) for result in results}
    markdown, values = out / "table.md", out / "table.csv"
    write_text(markdown, _markdown(results, sets, means))
    with whole_file(values) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        rows = [_csv_row(result, sets, means[result.name]) for result in results]
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["model"])
        writer.writeheader()
        writer.writerows(rows)
    return [markdown, values]


def headline(results: Sequence[ModelResult], sets: Sequence[str], means: Mapping[str, Estimate | None]) -> str:
    """The paper's table: F1 × 100, a row a model, a column a benchmark and their mean."""
    rows = [
        {"model": result.name}
        | {name: _percent(_estimate(result, name, "f1")) for name in sets}
        | {"mean": _percent(means[result.name])}
        for result in results
    ]
    return _lines(rows)


def _markdown(results: Sequence[ModelResult], sets: Sequence[str], means: Mapping[str, Estimate | None]) -> str:
    intervals = [
        {"model": result.name}
        | {name: _interval(_estimate(result, name, "f1")) for name in sets}
        | {"mean": _interval(means[result.name])}
        for result in results
    ]
    done = [(result, result.sets[name]) for result in results for name in sets if name in result.sets]
    sections = [
        ("F1", headline(results, sets, means)),
        ("95 % intervals of F1", _lines(intervals)),
        ("All figures", _lines([_figures_row(result, of_set) for result, of_set in done])),
        ("F1 by hops", _parts_table(done, lambda of_set: of_set.figures.by_hops, "{}-hop")),
        ("F1 by type", _parts_table(done, lambda of_set: of_set.figures.by_type, "{}")),
    ]
    parts = ["# Evaluation", _LEGEND]
    for title, table in sections:
        parts += [f"## {title}", table] if table else []
    return "\n\n".join(parts) + "\n"


def _figures_row(result: ModelResult, of_set: SetResult) -> Cells:
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
) -> str:
    """A row a model and benchmark that says its parts, a column a part: F1 and, in brackets, how many questions."""
    names = dict.fromkeys(part for _, of_set in done for part in parts_of(of_set))
    columns = sorted(names, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
    rows = []
    for result, of_set in done:
        parts = parts_of(of_set)
        if parts:
            cells = {heading.format(_escaped(name)): _part(parts.get(name)) for name in columns}
            rows.append({"model": result.name, "benchmark": of_set.name} | cells)
    return _lines(rows)


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


def _lines(rows: Sequence[Cells]) -> str:
    """A Markdown table; '' without rows."""
    if not rows:
        return ""
    head = ["---" if name in ("model", "benchmark") else "---:" for name in rows[0]]  # numbers are set flush right
    lines = [list(rows[0]), head, *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
