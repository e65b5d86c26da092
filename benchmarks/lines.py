"""A line of `make bench`: what was measured against which goal, and where the lines are kept.

`measured.json` holds the last lines of every benchmark; the table of docs/performance.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from calibadv.files import write_text

KEPT = Path(__file__).with_name("measured.json")
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
HEAD = ("what", "measured", "goal", "met", "command", "machine")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure beside its goal, both as people read them; `met`: whether it reaches the goal."""

    what: str
    measured: str
    goal: str
    met: bool
    benchmark: str = ""
    machine: str = ""


def at_least(what: str, ratio: float, goal: float, unit: str = " x", more: str = "") -> Line:
    """A line whose goal is a least ratio. `more` follows the figure: what it was made of."""
    return Line(what, f"{ratio:.2f}{unit}{more}", f"≥ {goal:g}{unit}", ratio >= goal)


def at_most(what: str, figure: float, goal: float, unit: str = "", more: str = "") -> Line:
    """A line whose goal is a limit."""
    return Line(what, f"{figure:.2f}{unit}{more}", f"≤ {goal:g}{unit}", figure <= goal)


def least_of(
    rounds: int, cases: Sequence[Callable[[], object]], clock: Callable[[], float] = time.process_time
) -> list[float]:
    """The least seconds of each case, which take turns: what else runs on the machine is met by all of them."""
    least = [float("inf")] * len(cases)
    for _ in range(rounds):
        for index, case in enumerate(cases):
            begun = clock()
            case()
            least[index] = min(least[index], clock() - begun)
    return least


def tree_cpu_s(process: psutil.Process) -> float:
    """CPU seconds so far of a process and of all that it has started and that lives."""
    total = 0.0
    for part in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            spent = part.cpu_times()
            total += spent.user + spent.system
    return total


def merged(kept: Sequence[Line], new: Sequence[Line]) -> list[Line]:
    """`kept` with every line of the benchmarks in `new` replaced by theirs, in place; those of new ones last."""
    mine = {line.benchmark for line in new}
    order = list(dict.fromkeys([line.benchmark for line in (*kept, *new)]))
    by = {name: [line for line in (new if name in mine else kept) if line.benchmark == name] for name in order}
    return [line for name in order for line in by[name]]


def load(path: Path = KEPT) -> list[Line]:
    """The lines that were kept."""
    return [Line(**line) for line in json.loads(path.read_text("utf-8"))] if path.is_file() else []


def keep(lines: Sequence[Line], path: Path = KEPT, page: Path = PAGE) -> None:
    """Writes the lines, and the page's table anew."""
    write_text(path, json.dumps([asdict(line) for line in lines], indent=1, ensure_ascii=False) + "\n")
    write_text(page, with_table(page.read_text("utf-8"), table(lines)))


def table(lines: Sequence[Line]) -> str:
    """In Markdown."""
    rows = [
        (line.what, line.measured, line.goal, "yes" if line.met else "no", f"`{command(line.benchmark)}`", line.machine)
        for line in lines
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (HEAD, ["---"] * len(HEAD), *rows))


def command(benchmark: str) -> str:
    """What measures the line again."""
    return f"make bench ARGS={benchmark}"


def with_table(page: str, made: str) -> str:
    """The page with what stands between its two marks replaced. ValueError without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no line {BEGIN!r} followed by {END!r}: put both where the table belongs")
    return f"{before}{BEGIN}\n{made}{END}{after}"


def machine() -> str:
    """What a reader must know of the machine: seconds are its own."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").split("\n") if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = (models[0] if models else platform.machine()).replace("(R)", "").replace("(TM)", "")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{os.cpu_count()} cores, {model}, {f'{gpus} x {torch.cuda.get_device_name(0)}' if gpus else 'no GPU'}"


def run(measure: Callable[[], list[Line]], doc: str | None) -> int:
    """What a benchmark's module does as a command: 0, its lines on standard output, as JSON with --json."""
    parser = argparse.ArgumentParser(
        description=doc, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="lines as JSON")
    args = parser.parse_args()
    lines = measure()
    made = json.dumps([asdict(line) for line in lines]) + "\n" if args.json else table(lines)
    sys.stdout.write(made)
    return 0
