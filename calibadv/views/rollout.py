"""A rollout and the before/after table as rich renderables, used by the live and by the plain view."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from calibadv.tracking.record import RolloutRecord, TurnRecord
from calibadv.views.printable import printable
from calibadv.views.summary import RunSummary

_ROWS = (("F1", "f1"), ("exact match", "em"), ("format", "format"), ("searches", "searches"))
LEGEND = (
    "● silver: a document that a correct rollout of the question retrieved too; c: the share of a search's documents "
    "that are silver; a → b: the advantage before and after calibration"
)
_MAX_TEXT = 400  # characters of a think or a void turn


def summary_text(summary: RunSummary) -> RenderableType:
    """The whole end of a run: a rollout, where things lie, and last, where it stays in sight, the table."""
    parts: list[RenderableType] = []
    if summary.rollout is not None:
        parts += [rollout_panel(summary.rollout), Text(LEGEND, "dim"), Text()]
    # Folded anywhere, so that a path or a command that is longer than a line can be copied whole.
    parts += [Text.assemble(("results  ", "dim"), str(summary.folder), overflow="fold", no_wrap=False)]
    for label, hint in (("next", summary.next.command), ("page", summary.next.page)):
        if hint:
            parts.append(Text.assemble((f"{label:<9}", "dim"), (hint, "cyan"), overflow="fold"))
    return Group(*parts, Text(), comparison_table(summary))


def comparison_table(summary: RunSummary) -> Table:
    """Evaluation before and after training; a metric missing on both sides has no row."""
    minutes, seconds = divmod(round(summary.seconds), 60)
    took = f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {seconds:02d} s"
    table = Table(title=f"{summary.steps} steps in {took}", title_justify="left", box=None)
    table.add_column("held-out questions", style="bold")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right", min_width=6, no_wrap=True)
    for label, key in _ROWS:
        if key in summary.before or key in summary.after:
            table.add_row(label, *_cells(summary.before, summary.after, key))
    return table


def rollout_panel(record: RolloutRecord) -> Panel:
    """One rollout in colour: what it thought, searched, read and answered, and the credit of every turn."""
    parts: list[RenderableType] = [Text(printable(record.question), style="bold")]
    for number, turn in enumerate(record.turns, start=1):
        parts += [Text(), *_turn(number, turn)]
    golden = " / ".join(record.golden_answers)
    verdict = "green" if record.reward > 0 else "red"
    parts += [
        Text(),
        Text.assemble(
            ("reward ", "dim"),
            (f"{record.reward:.2f}", f"bold {verdict}"),
            (f"  F1 {record.answer_reward:.2f}  format {record.format_reward:.0f}  golden: {printable(golden)}", "dim"),
        ),
    ]
    title = f"step {record.step} · {record.question_id} · rollout {record.index + 1} of {record.group_size}"
    return Panel(Group(*parts), title=Text(printable(title)), title_align="left", border_style="dim", padding=(1, 2))


def _turn(number: int, turn: TurnRecord) -> list[RenderableType]:
    lines: list[RenderableType] = [Text.assemble((f"{number} {turn.kind}  ", "bold"), *_credit(turn))]
    if turn.think:
        lines.append(_indented(Text(_cut(turn.think), style="italic dim")))
    if turn.query is not None:
        lines.append(_indented(Text.assemble(("? ", "cyan"), (printable(turn.query), "cyan"))))
    for doc in turn.documents:
        mark = ("● ", "green") if doc.silver else ("○ ", "dim")
        lines.append(
            _indented(
                Text.assemble(
                    mark,
                    (printable(doc.title), "green" if doc.silver else ""),
                    ("  (silver)", "dim green") if doc.silver else "",
                )
            )
        )
    if turn.kind == "call":
        lines.append(_indented(Text(_cut(turn.text.rpartition("</think>")[2]), style="cyan")))
    lines += [_indented(Text.assemble((f"{call.tool}: ", "dim"), _cut(call.text))) for call in turn.calls]
    if turn.kind == "answer":
        lines.append(_indented(Text.assemble(("= ", "bold"), (printable(turn.answer or "(empty)"), "bold"))))
    if turn.kind == "void":
        lines.append(_indented(Text(_cut(turn.text), style="red")))
    return lines


def _credit(turn: TurnRecord) -> list[Text]:
    parts = []
    if turn.advantage is not None:
        before = turn.advantage if turn.advantage_before is None else turn.advantage_before
        parts = [Text("advantage ", style="dim"), _signed(before)]
        if abs(before - turn.advantage) > 1e-6:
            parts += [Text(" → ", style="dim"), _signed(turn.advantage)]
    if turn.score is not None:
        parts.append(Text(f"  c = {turn.score:.2f}", style="yellow"))
    return parts


def _signed(value: float) -> Text:
    rounded = round(value, 2)
    return Text(
        f"{rounded:+.2f}" if rounded else "0", style="green" if rounded > 0 else "red" if rounded < 0 else "dim"
    )


def _cells(before: Mapping[str, float], after: Mapping[str, float], key: str) -> list[str | Text]:
    cells: list[str | Text] = [f"{side[key]:.3f}" if key in side else "–" for side in (before, after)]
    if key not in before or key not in after:
        return [*cells, ""]
    change = after[key] - before[key]
    # More searches are neither better nor worse.
    style = "" if key == "searches" else "bold green" if change > 0 else "red" if change < 0 else "dim"
    return [*cells, Text(f"{change:+.3f}", style=style)]


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 2))


def _cut(text: str) -> str:
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= _MAX_TEXT else f"{flat[:_MAX_TEXT]}…"
