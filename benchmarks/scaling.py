"""How a step's cost grows: `python -m benchmarks.scaling {model,measure} …`; prints Markdown tables.

model    the modelled step of Qwen2.5-7B on 8 and 64 GPUs beside the paper's 809 s (docs/scaling.md); starts nothing
measure  the pocket step with 1 and 2 engines and 1 and 2 learners on this machine, in under 12 minutes on two cores;
         what is finished is kept in --out, and the same command goes on with the rest
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("scaling")  # before what takes seconds to import

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from calibadv.tables import markdown_rows
from workflows.command import command_parser, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """0: modelled or measured. Tables go to standard output, progress to standard error."""
    args = _parser().parse_args(arguments)
    sys.stdout.write(_measure(args) if args.what == "measure" else _model())
    return 0


def _model() -> str:
    from benchmarks.scaling_model_table import model_tables

    return model_tables()


def _measure(args: argparse.Namespace) -> str:
    from benchmarks.scaling_cases import HEAD, rows
    from benchmarks.scaling_measure import measure

    out = Path(args.out)
    results = measure(out, steps=args.steps, questions=args.questions, limit_s=args.limit_s)
    (out / "scaling.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return markdown_rows(HEAD, rows(results))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, prog="python -m benchmarks.scaling")
    of = parser.add_subparsers(dest="what", required=True)
    of.add_parser("model", allow_abbrev=False)
    measure = of.add_parser("measure", allow_abbrev=False)
    measure.add_argument("--out", default="runs/scaling", help="folder of results, logs and runs")
    measure.add_argument("--steps", type=int, default=4, help="of each case; the first is left out")
    measure.add_argument("--questions", type=int, default=16, help="a step, five rollouts each")
    measure.add_argument("--limit-s", type=float, default=300.0, help="of each case")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
