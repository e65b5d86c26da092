"""Who made a run, from which code, by which command: what MLflow's page shows of every run, if it is told."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from calibadv.tracking.run_files import CONFIG

ROOT = Path(__file__).parents[2]  # of the repository, where this is one
NOTE = "mlflow.note.content"  # the tag of an experiment's or a run's description, in Markdown
EXPERIMENT_NOTE = """\
Search agents trained by calibadv. What is where:

| page | shows |
|---|---|
| **Runs** | a training each, coloured by method, and `evaluation-…`; *Dataset*: from what; *Models*: what came of it |
| **Runs, charts** | `eval/f1` of held-out questions, `reward/mean`, `overview`; `final/f1` compares finished runs |
| **Models** | evaluated checkpoints with step and figures; tag `checkpoint`: kept, best or removed |
| **Datasets** | held-out questions with their answers, a set for each file of them |
| **Traces** | sampled rollouts: question, searches, documents, answer, and the credit of every turn |
| a run, **Artifacts** | `report.html`, the run on one page; plots, predictions, and the model with its card |

The truth is the folder of a run, `runs/NAME`: these pages mirror it.
"""
WHERE = (
    "**Model metrics**: curves and `overview`. **Traces**: sampled rollouts. **Artifacts**: `report.html`, the run on "
    "one page, `plots`, `model` with its card. **Models**: evaluated checkpoints. Made by:"
)
_COLORS = {
    "calibadv": "#2563eb",
    "criticsearch": "#7f9a12",
    "first_exposure": "#0d9488",
    "gigpo": "#db2777",
    "grpo": "#ea580c",
    "lld": "#dc2626",
    "mt_grpo": "#8b5e34",
    "ppo": "#475569",
    "simpletir": "#16a34a",
    "stepsearch": "#7c3aed",
    "tree_grpo": "#0891b2",
    "w_reinforce": "#ca8a04",
}


def provenance(root: Path = ROOT) -> dict[str, str]:
    """MLflow's own tags of user, source and the commit of `root`; what cannot be found out is left out."""
    tags = {"mlflow.user": _user(), "mlflow.source.git.commit": _commit(root)}
    return {name: value for name, value in tags.items() if value} | {
        "mlflow.source.name": _script() or "calibadv",
        "mlflow.source.type": "LOCAL",
    }


def method_color(method: str) -> str:
    """The colour of a method's runs in MLflow's charts: equal for equal methods, also for one of your own."""
    colors = list(_COLORS.values())
    return _COLORS.get(method) or colors[zlib.crc32(method.encode()) % len(colors)]


def command_line(folder: Path) -> str:
    """The command that made the run in `folder`, as it can be given again; its own configuration where another process
    (a study's) called for it."""
    script = _script()
    if script:
        return shlex.join([*(script.split() if " " in script else ("python", script)), *sys.argv[1:]])
    return shlex.join(["python", "workflows/train.py", "--config", str(folder / CONFIG)])


def note(title: str, before: Mapping[str, float], after: Mapping[str, float], command: str) -> str:
    """The run's description in Markdown: what it is, before and after on the held-out questions, and the command.

    Without `after` the run has not come to its end.
    """
    lines = [title, ""]
    if before:
        lines += ["| held-out questions | before | after | change |", "|---|---:|---:|---:|"]
        lines += [_row(name, before, after) for name in before]
        lines.append("")
    return "\n".join([*lines, WHERE, "", "```", command, "```"])


def _row(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    if name not in after:
        return f"| {name} | {before[name]:.3f} | | |"
    return f"| {name} | {before[name]:.3f} | {after[name]:.3f} | {after[name] - before[name]:+.3f} |"


def _script() -> str:
    """One of our commands, as seen from the repository or installed; "" where another program runs our code."""
    path = Path(sys.argv[0]).absolute()
    if path.name.startswith("calibadv "):
        return path.name
    return f"workflows/{path.name}" if path.parent == ROOT / "workflows" else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's number without a name
        return str(os.getuid())


@cache
def _commit(root: Path) -> str:
    """Of the code that runs, "" where it is no checkout; a tree with changes says so."""
    try:
        # A repository around an installed package is somebody else's.
        if not (root / ".git").exists():
            return ""
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
