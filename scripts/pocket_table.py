"""Prints the table of docs/pocket.md from finished runs: `pocket_table.py runs/calibadv-seed0 runs/grpo-seed0 …`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

COLUMNS = {
    "method": "{method}",
    "seed": "{seed}",
    "F1 before": "{f1_before:.3f}",
    "F1 after": "{f1_after:.3f}",
    "gain": "{gain:+.3f}",
    "EM before": "{em_before:.3f}",
    "EM after": "{em_after:.3f}",
    "format after": "{format_after:.3f}",
    "searches after": "{searches_after:.2f}",
    "wall": "{minutes:.1f} min",
    "other": "{other:.1%}",
    "worst log-prob diff": "{logprob_diff_worst_step:.1e}",
    "largest engine share": "{engine_share_max:.2f}",
}


def row(folder: str) -> str:
    """One run as a table row."""
    summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
    derived = {
        "gain": summary["f1_after"] - summary["f1_before"],
        "minutes": summary["wall_s"] / 60,
        "other": summary["time_split"]["other"],
    }
    return "| " + " | ".join(text.format(**summary, **derived) for text in COLUMNS.values()) + " |"


lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *map(row, sys.argv[1:])]
sys.stdout.write("\n".join(lines) + "\n")
