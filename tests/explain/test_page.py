"""What `calibadv explain` prints of texts that a policy or a document made up."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from calibadv.explain.disagreement import figures, searches_of
from calibadv.explain.page import group_page, overview
from calibadv.explain.replay import credited, methods_for
from calibadv.types import Document, Question
from tests.build import group, trajectory
from tests.explain.test_replay import stored
from tests.report.made_up import POISON


def test_nothing_that_a_run_holds_steers_the_terminal() -> None:
    texts = [f"<think>{POISON}</think>"]
    rolled = [trajectory(1.0, [1, 1], [["a", POISON]], texts=texts), trajectory(0.0, [1, 1], [["b"]], texts=texts)]
    rolled = [
        replace(t, answer=POISON, turns=(replace(t.turns[0], query=POISON), replace(t.turns[1], text=POISON)))
        for t in rolled
    ]
    question = Question(POISON, POISON, (POISON,), gold_doc_ids=("b",))
    hostile = replace(group(*rolled), question=question)
    step = replace(stored(hostile), documents={name: Document(name, POISON, POISON) for name in ("a", "b", POISON)})
    (columns,) = credited(step, methods_for(step))
    searches = searches_of(step, [columns])
    console = Console(file=io.StringIO(), width=300)
    console.print(group_page(1, columns, step.documents), *overview(searches, figures(searches, [columns]), None, 3))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert not {"\x1b", "\ud83d", "\u2028"} & set(said)
    # Question, id and golden answer; of each rollout answer, query, think, titles or ids, text; its search in question.
    assert said.count("onerror=window.stolen=1") >= 3 + 2 * 4
