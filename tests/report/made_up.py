"""Run folders that nobody trained: whole, with texts that would be markup if a page let them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calibadv.config import Config, load_config, to_toml
from calibadv.evaluation.prediction import Prediction
from calibadv.json_lines import json_line
from calibadv.methods.reasons import turn_means
from calibadv.tracking.groups import StoredStep, write_groups
from calibadv.types import Document, Group, Question
from tests.build import trajectory

HOSTILE = "</script><script>window.stolen = 1</script><img src=x onerror=window.stolen=1> who?"
POISON = (
    "<img src=x onerror=window.stolen=1></script><script>window.stolen = 1</script> ${x} `y` \\ \u2028 \ud83d \x1b[2J"
)


def prediction(id_: str, f1: float, *, hops: int | None = None, searches: int = 1) -> Prediction:
    """An answer with this F1."""
    return Prediction(
        id_,
        "who?",
        ("Ada",),
        "Ada",
        f1,
        float(f1 == 1),
        float(f1 == 1),
        1.0,
        searches,
        20,
        1.1,
        False,
        False,
        hops,
        None,
    )


def history(steps: int, **of_last: float) -> list[dict[str, float]]:
    """A line before training and one a step, F1 rising from 0.2; `of_last`, with __ for /, are the last line's."""
    rows: list[dict[str, float]] = [{"step": 0, "eval/f1": 0.2, "eval/em": 0.2, "eval/format": 1, "eval/questions": 4}]
    for step in range(1, steps + 1):
        f1 = 0.2 + 0.6 * step / steps
        rows.append(
            {
                "step": step, "reward/mean": f1, "reward/f1": f1, "reward/format": 0.9, "policy/entropy": 0.5,
                "policy/ppl": 1.5, "rollout/searches": 1 + math.sin(step), "advantage/neg_pos_ratio": 1.1,
                "rollout/tokens_sampled": 1000, "rollout/engine_deaths": 0, "time/step_s": 10, "time/rollout_s": 6,
                "time/learn_s": 4, "silver/score_mean": 0.4,
            }
        )  # fmt: skip
    rows[-1] |= {"eval/f1": 0.7, "eval/em": 0.6, "eval/format": 1, "eval/questions": 4}
    rows[-1] |= {name.replace("__", "/"): value for name, value in of_last.items()}
    return rows


def disputed_group(id_: str = "test/q") -> Group:
    """A right rollout that found a and b; a wrong one that found a, c, d and then e; the gold passage is a."""
    right = trajectory(1.0, [2, 2], [["a", "b"]], texts=["<think>look</think>"])
    wrong = trajectory(0.0, [2, 2, 4], [["a", "c", "d"], ["e"]], texts=["<think>look</think>"])
    wrong = replace(wrong, answer="Bob", turns=(replace(wrong.turns[0], query=POISON), *wrong.turns[1:]))
    return Group(Question(id_, HOSTILE, ("Ada",), gold_doc_ids=("a",), metadata={"hops": "2"}), (right, wrong))


def write_run(
    folder: Path,
    rows: Sequence[Mapping[str, float]],
    *,
    groups: Mapping[int, Sequence[Group]] | None = None,
    first: Sequence[Prediction] = (),
    answers: Sequence[Prediction] = (),
    summary: Mapping[str, Any] | None = None,
    documents: Mapping[str, Document] | None = None,
    **overrides: Any,
) -> Path:
    """A run's folder with these metrics, groups by step and answers; `overrides`: settings, with __ for the dot."""
    folder.mkdir(parents=True)
    config = load_config(None, {"run.name": folder.name} | {key.replace("__", "."): v for key, v in overrides.items()})
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(map(json_line, rows)), encoding="utf-8")
    for name, of in (("first_predictions", first), ("predictions", answers)):
        if of:
            (folder / f"{name}.jsonl").write_text("".join(json_line(p.to_dict()) for p in of), encoding="utf-8")
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    known = documents or {id_: Document(id_, f"Title {id_} {HOSTILE}", f"Text {POISON}") for id_ in "abcde"}
    for step, of_step in (groups or {}).items():
        write_groups(folder / "groups", _stored(config, step, tuple(of_step), known), limit_mb=1000)
    return folder


def long_run(folder: Path, steps: int, *, words: int = 100) -> Path:
    """A run of many steps with the sampled groups of its recipe: 4 of 5 rollouts every fifth step, each of its searches
    with three documents of its own of about so many words."""
    rng = np.random.default_rng(0)
    vocabulary = np.asarray(
        ["".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(2, 11))) for _ in range(20_000)]
    )
    documents: dict[str, Document] = {}

    def text(count: int) -> str:
        return " ".join(rng.choice(vocabulary, count).tolist())

    def document() -> str:
        id_ = f"wiki/{len(documents)}"
        documents[id_] = Document(id_, text(3), text(words))
        return id_

    def rolled(id_: str) -> Group:
        made, pool = [], [document() for _ in range(12)]
        for _ in range(5):
            turns = int(rng.integers(2, 5))
            docs = [rng.choice(pool, 3, replace=False).tolist() for _ in range(turns - 1)]
            texts = [f"<think>{text(40)}</think><search>{text(5)}</search>" for _ in range(turns)]
            one = trajectory(float(rng.choice([0.0, 0.4, 1.0])), [30] * turns, docs, texts=texts)
            made.append(replace(one, turns=tuple(replace(turn, query=text(5)) for turn in one.turns)))
        return Group(Question(id_, text(15), (text(2),), gold_doc_ids=tuple(pool[:2])), tuple(made))

    logged = range(0, steps, 5)
    groups = {step: [rolled(f"train/{step}-{g}") for g in range(4)] for step in logged}
    rows = [
        row | {f"made/up_{m}": float(rng.random()) for m in range(60)} if row["step"] else row for row in history(steps)
    ]
    return write_run(folder, rows, groups=groups, documents=documents, run__steps=steps)


def _stored(config: Config, step: int, groups: tuple[Group, ...], documents: Mapping[str, Document]) -> StoredStep:
    method = config.method.made
    trained = tuple(turn_means(method.advantages(group), group) for group in groups)
    found = frozenset().union(*(group.doc_ids for group in groups))
    kept = {id_: document for id_, document in documents.items() if id_ in found}
    return StoredStep(step, config.method.name, config.method.params, groups, trained, kept)
