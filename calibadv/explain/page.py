"""What `calibadv explain` prints: a group's turns with their credit and its arithmetic, and methods side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from calibadv.advantages.silver import silver_documents
from calibadv.explain.disagreement import MethodFigures, Search, Why
from calibadv.explain.judged import Judged
from calibadv.explain.replay import Credited
from calibadv.explain.truth import Rate, Truth, truth_by_step
from calibadv.methods.reasons import Reasons, Term
from calibadv.rewards.gold_match import gold_documents
from calibadv.tags import think_text
from calibadv.types import Document, Trajectory, Turn, TurnKind
from calibadv.views.printable import printable

_LONGEST = 160  # characters of a text that is shown


def group_page(step: int, columns: Mapping[str, Credited], documents: Mapping[str, Document]) -> Stack:
    """A group, rollout by rollout: what each turn did, what it found, and of each method its credit and why."""
    group = next(iter(columns.values())).group
    silver, gold = silver_documents(group), gold_documents(group, documents)
    known = ", gold: one of the question's gold passages" if group.question.gold_doc_ids else ""
    parts: list[RenderableType] = [
        Text.assemble(
            (printable(group.question.text), "bold"), (printable(f"   step {step}, {group.question.id}"), "dim")
        ),
        Text(printable(f"golden: {' / '.join(group.question.golden_answers)}")),
        Text(f"● silver: a correct rollout found it{known}", "dim"),
    ]
    for name, column in columns.items():
        if column.note:
            parts.append(Text(f"{name}: {column.note}", "dim"))
    for i, trajectory in enumerate(group.trajectories):
        parts += [Text(), _rollout_line(i, trajectory)]
        for s, turn in enumerate(trajectory.turns):
            parts.append(Padding(_turn_text(s, turn, documents, silver, gold), (0, 0, 0, 2)))
            parts += [Padding(_credit_text(name, column, i, s), (0, 0, 0, 6)) for name, column in columns.items()]
    return Stack(*parts)


def overview(
    searches: Sequence[Search], figures: Mapping[str, MethodFigures], truth: Truth | None, shown: int
) -> Iterator[RenderableType]:
    """Methods side by side; c against the truth; of each kind the `shown` searches on which they disagree most."""
    yield _figures_table(figures, len(searches))
    yield _agreement_table(figures)
    yield from _truth_text(truth)
    if truth is not None and len(parts := truth_by_step(searches)) > 1:
        yield _truth_table(parts)
    if searches and shown:
        yield _why_table(searches)
        for why in Why:
            if alike := [search for search in searches if search.why is why][:shown]:
                yield _disputed(f"disputed most: a search that {why}", alike)


def arithmetic(reasons: Reasons) -> str:
    """The sum of products with its numbers, e.g. "-0.50 [reward - mean: 0.00 - 0.50] × 1.41 [...] = -0.71"."""
    products = [" × ".join(map(_term, product)) for product in reasons.addends]
    said = " + ".join(products) + f" = {reasons.total:+.3f}"
    return f"{said}  ({reasons.note})" if reasons.note else said


def _term(term: Term) -> str:
    return f"{term.value:.2f} [{term.name}{f': {term.why}' if term.why else ''}]"


def _rollout_line(index: int, trajectory: Trajectory) -> Text:
    said = f"rollout {index + 1}  reward {trajectory.reward:.2f}  answer {trajectory.answer or 'none'}"
    return Text(printable(said), "green" if trajectory.reward > 0 else "red")


def _turn_text(
    s: int, turn: Turn, documents: Mapping[str, Document], silver: frozenset[str], gold: frozenset[str]
) -> Text:
    did = turn.query if turn.kind is TurnKind.SEARCH else turn.text
    text = Text.assemble(
        (f"{s + 1} {turn.kind}  ", "bold"), _short(did or ""), (f"  {len(turn.action_ids)} tokens", "dim")
    )
    if turn.kind is TurnKind.SEARCH and (think := think_text(turn.text)):
        text.append(f"\n    {_short(think)}", "dim italic")
    for doc in turn.doc_ids:
        mark, style = ("●", "green") if doc in silver else ("○", "")
        text.append(f"\n    {mark} {printable(documents[doc].title if doc in documents else doc)}", style)
        if doc in gold:
            text.append("  gold", "yellow")
    return text


def _credit_text(name: str, column: Credited, i: int, s: int) -> Text:
    value = column.credit[i][s] + 0.0  # -0.0 is 0
    why = "  (tells no reasons)"
    if column.reasons:
        why = f"  = {arithmetic(column.reasons[i][s])}".rsplit(" = ", 1)[0]  # the sum stands before it
    return Text.assemble((f"{name} {value:+.3f}", _style(value)), (why, "dim"))


def _figures_table(figures: Mapping[str, MethodFigures], searches: int) -> Table:
    table = Table(title=f"{searches} searches", title_justify="left", box=None)
    for name in ("method", "blamed", "of them all silver", "of them any silver", "N / P"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, of in figures.items():
        table.add_row(
            name,
            _percent(of.blamed / of.searches if of.searches else None),
            _percent(of.blamed_all_silver),
            _percent(of.blamed_any_silver),
            "-" if of.neg_pos is None else f"{of.neg_pos:.2f}",
        )
    return table


def _agreement_table(figures: Mapping[str, MethodFigures]) -> Table:
    table = Table(title="searches of equal sign", title_justify="left", box=None)
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    for name, of in figures.items():
        table.add_row(name, *(_percent(of.agrees[other]) for other in figures))
    return table


def _truth_text(truth: Truth | None) -> Iterator[RenderableType]:
    if truth is None:
        yield Text("c against gold passages: none are known in this corpus for the questions at hand", "dim")
        return
    yield Text(
        f"c > 0 as a sign of a gold passage, {truth.searches} searches of rollouts below their group's mean: "
        f"precision {_rate(truth.precision)}, recall {_rate(truth.recall)}"
    )
    bins = ", ".join(f"c {c:.2f}: {share:.0%} of {n}" for c, share, n in truth.calibration)
    yield Text(f"mean share of gold passages by c: {bins}")


def _truth_table(parts: Sequence[tuple[int, int, Truth]]) -> Table:
    table = Table(title="c against gold passages in parts of the training", title_justify="left", box=None)
    bins = sorted({c for _, _, truth in parts for c, _, _ in truth.calibration})
    for name in ("steps", "searches", "precision", "recall", *(f"gold at c {c:.2f}" for c in bins)):
        table.add_column(name, justify="left" if name == "steps" else "right")
    for first, last, truth in parts:
        share = {c: value for c, value, _ in truth.calibration}
        table.add_row(
            str(first) if first == last else f"{first} to {last}",
            str(truth.searches),
            _rate(truth.precision),
            _rate(truth.recall),
            *(_percent(share.get(c)) for c in bins),
        )
    return table


def judged_table(judged: Sequence[Judged]) -> Table:
    """What a judge said of searches with c > 0.5, beside the gold passages."""
    table = Table(title="a judge on searches with c > 0.5", title_justify="left", box=None)
    for name in ("steps", "asked", "helpful", "at least partially", "found gold", "no verdict"):
        table.add_column(name, justify="left" if name == "steps" else "right")
    for of in judged:
        table.add_row(
            str(of.first) if of.first == of.last else f"{of.first} to {of.last}",
            str(of.asked),
            _rate(of.helpful),
            _rate(of.partly),
            _rate(of.gold),
            str(of.unreadable + of.failed),
        )
    return table


def _why_table(searches: Sequence[Search]) -> Table:
    table = Table(title="what was found, beside the outcome", title_justify="left", box=None)
    for name in ("a search that", "searches", "signs differ"):
        table.add_column(name, justify="left" if name == "a search that" else "right")
    counts = Counter(search.why for search in searches)
    opposed = Counter(search.why for search in searches if search.opposed)
    for why, count in counts.most_common():
        table.add_row(str(why), str(count), str(opposed[why]))
    return table


def _disputed(title: str, searches: Sequence[Search]) -> Stack:
    """Each search with the options that show its group, and below it every method's credit."""
    parts: list[RenderableType] = [Text(title, "italic")]
    for search in searches:
        where = printable(f"--step {search.step} --question {search.group.question.id}")
        turn = search.group.trajectories[search.rollout].turns[search.turn]
        told = f"  rollout {search.rollout + 1}, turn {search.turn + 1}, c {search.c:.2f}: "
        credit = [(f"{name} {value:+.2f}  ", _style(value)) for name, value in search.credit.items()]
        parts.append(Padding(Text.assemble((where, "bold"), told, _short(turn.query or "")), (0, 0, 0, 1)))
        parts.append(Padding(Text.assemble(*credit), (0, 0, 0, 4)))
    return Stack(*parts)


def _style(value: float) -> str:
    return "red" if value < 0 else "green" if value > 0 else "dim"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _rate(rate: Rate | None) -> str:
    return "undefined" if rate is None else f"{rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f}, of {rate.of})"


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
