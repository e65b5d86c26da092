"""The report: a table that grows on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from calibadv.doctor.examine import Check, examine
from calibadv.doctor.finding import Finding, State
from calibadv.doctor.subject import Subject
from calibadv.views.printable import printable

_STYLES = {State.PASS: "green", State.WARN: "yellow", State.FAIL: "bold red"}


def report(checks: Sequence[Check], subject: Subject, console: Console) -> list[Finding]:
    """All findings, each shown as soon as it is there."""
    return _live(checks, subject, console) if console.is_terminal else _plain(checks, subject, console)


def _live(checks: Sequence[Check], subject: Subject, console: Console) -> list[Finding]:
    seen: list[Finding] = []
    under_way = Spinner("dots", style="cyan")
    with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:

        def begin(check: Check) -> None:
            under_way.update(text=Text(check.name, style="dim"))
            live.update(Group(table(seen), under_way))

        for finding in examine(checks, subject, begin):
            seen.append(finding)
            live.update(Group(table(seen), under_way))
        live.update(Group(table(seen), Text(verdict(seen))))
    return seen


def _plain(checks: Sequence[Check], subject: Subject, console: Console) -> list[Finding]:
    seen = []
    for finding in examine(checks, subject):
        seen.append(finding)
        for line in lines(finding):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(verdict(seen), markup=False, highlight=False, soft_wrap=True)
    return seen


def table(findings: Iterable[Finding]) -> RenderableType:
    """A row a finding; what to do stands below what was found."""
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(overflow="fold")
    for finding in findings:
        style = _STYLES[finding.state]
        said = Text(printable(finding.said))
        if finding.remedy:
            said.append(f"\n→ {printable(finding.remedy)}", style=style)
        grid.add_row(Text(finding.state, style=style), Text(printable(finding.name)), said)
    return grid


def lines(finding: Finding) -> list[str]:
    """A finding as plain text: what was found, then what to do."""
    found = [f"{finding.state}  {printable(finding.name)}: {printable(finding.said)}"]
    return found + ([f"      -> {printable(finding.remedy)}"] if finding.remedy else [])


def verdict(findings: Iterable[Finding]) -> str:
    """The last line: how many passed, warned and failed."""
    count = Counter(finding.state for finding in findings)
    parts = [f"{count[State.PASS]} passed", f"{count[State.WARN]} warned", f"{count[State.FAIL]} failed"]
    after = "mend what failed before a long run" if count[State.FAIL] else "ready for a long run"
    return f"{', '.join(parts)}: {after}"
