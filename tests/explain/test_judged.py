"""c held against a judge's word, over a real HTTP server on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibadv.explain.disagreement import searches_of
from calibadv.explain.judged import judged_of
from calibadv.explain.replay import credited, methods_for
from calibadv.rewards.judge import Endpoint
from calibadv.tracking.groups import write_groups
from tests.explain.test_disagreement import told
from tests.explain.test_replay import DOCUMENTS, stored
from tests.rewards.conftest import server
from tests.rewards.judge_server import JudgeServer, reply
from workflows.explain import main

__all__ = ["server"]
# Of the group's searches a+b, a and b have c = 1. The judge likes what begins with the document A.


def verdict(prompt: str, _: int) -> tuple[int, str]:
    return 200, reply("VERDICT: 1" if "Doc 1(Title: A)" in prompt else "VERDICT: 0.5")


def test_likely_right_searches_are_asked_about_in_parts_of_the_training(server: JudgeServer) -> None:
    server.answer = verdict
    columns = credited(stored(told()), methods_for(stored(told()), ["grpo"]))
    steps = [replace(stored(told()), step=step) for step in (0, 9)]
    searches = [search for step in steps for search in searches_of(step, columns)]
    early, late = judged_of(searches, {0: DOCUMENTS, 9: DOCUMENTS}, Endpoint(server.url, "judge"))
    assert (early.first, early.last, early.asked, late.first) == (0, 0, 3, 9)
    assert early.helpful is not None
    assert early.partly is not None
    assert early.gold is not None
    assert (early.helpful.value, early.helpful.of) == (pytest.approx(2 / 3), 3)
    assert early.partly.value == 1
    assert early.gold.value == pytest.approx(2 / 3)  # b is no gold passage
    assert (early.unreadable, early.failed) == (0, 0)
    assert len(server.prompts) == 3  # equal searches are one call


def test_what_a_judge_does_not_say_is_counted_and_never_guessed(server: JudgeServer) -> None:
    server.answer = lambda prompt, _: (200, reply("no idea")) if "Doc 2" in prompt else (500, "{}")
    columns = credited(stored(told()), methods_for(stored(told()), ["grpo"]))
    endpoint = Endpoint(server.url, "judge", retries=0)
    (judged,) = judged_of(searches_of(stored(told()), columns), {4: DOCUMENTS}, endpoint)
    assert (judged.helpful, judged.asked, judged.unreadable, judged.failed) == (None, 3, 1, 2)


def test_no_more_than_so_many_are_drawn_and_by_the_seed(server: JudgeServer) -> None:
    columns = credited(stored(told()), methods_for(stored(told()), ["grpo"]))
    searches = searches_of(stored(told()), columns)
    (judged,) = judged_of(searches, {4: DOCUMENTS}, Endpoint(server.url, "judge"), each=2)
    assert judged.asked == 2
    unlikely = [search for search in searches if search.c <= 0.5]
    assert judged_of(unlikely, {4: DOCUMENTS}, Endpoint(server.url, "judge")) == []


def test_explain_shows_the_judge_beside_the_gold_passages(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = verdict
    write_groups(tmp_path / "groups", stored(told()), limit_mb=1)
    assert main([str(tmp_path), "--judge", server.url, "--judge-model", "judge"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a judge on searches with c > 0.5" in said
    assert "4 3 0.67 (0.67" in said  # step 4, three asked
