"""The page as one file: markup, style and scripts of `page/`, and the data, gzipped in base64.

Nothing of a run is ever written as markup: scripts set it as text. A content security policy names the hashes of the
one style and the one script of the file, so that nothing else could run, and forbids every request.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from calibadv.report.data import PageData

SCRIPTS = ("dom", "charts", "summary", "curves", "credit", "rollouts", "methods", "runs", "main")
"""In the order in which they stand in the page."""


def page(data: PageData) -> str:
    """The whole HTML file."""
    style = _text("style.css")
    script = '(() => {\n"use strict";\n' + "\n".join(_text(f"{name}.js") for name in SCRIPTS) + "\n})();\n"
    payloads = {"head": data.head, **{f"rollouts-{i}": rollouts for i, rollouts in enumerate(data.rollouts)}}
    return Template(_text("index.html")).substitute(
        title=escape(" · ".join(run["name"] for run in data.head["runs"][:4])),
        policy=(
            f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        style=style,
        summary=escape("\n".join(_line(run) for run in data.head["runs"])),
        payloads="\n".join(
            f'<script type="application/octet-stream" id="{name}">{_packed(values)}</script>'
            for name, values in payloads.items()
        ),
        script=script,
    )


def _line(run: dict[str, Any]) -> str:
    """What is there to read without scripts."""
    rows = "; ".join(
        f"{row['label']} {_mean(row['before'])} → {_mean(row['after'])}" for row in run["evaluation"]["rows"]
    )
    return f"{run['name']}: {run['method']}, seed {run['seed']}, {run['steps']} of {run['planned']} steps. {rows}"


def _mean(estimate: dict[str, float] | None) -> str:
    return "–" if estimate is None else f"{estimate['mean']:.3f}"


def _packed(values: Any) -> str:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "surrogatepass"), mtime=0)).decode()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return (files("calibadv.report") / "page" / name).read_text(encoding="utf-8")
