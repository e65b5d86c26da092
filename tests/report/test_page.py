"""The file: whole by itself, nothing of a run in its markup, and small."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from calibadv.report.rollouts import evenly_spaced
from calibadv.report.write import write_report
from calibadv.rewards.judge import Endpoint
from tests.report.made_up import HOSTILE, POISON, disputed_group, history, long_run, prediction, write_run
from tests.rewards.conftest import server
from tests.rewards.judge_server import JudgeServer

__all__ = ["server"]


def payload(html: str, name: str) -> Any:
    found = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', html)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    groups = {0: [disputed_group("test/0")], 1: [disputed_group("test/1"), disputed_group("test/2")]}
    return write_run(tmp_path / "runs" / "mine", history(4), groups=groups, answers=[prediction("q", 1.0)])


def test_nothing_of_a_run_is_markup_and_the_policy_names_the_hashes_of_what_may_run(run: Path, tmp_path: Path) -> None:
    html = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "stolen" not in html
    assert html.count("<script") == 3  # two payloads and the one that runs
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]


def test_it_asks_for_nothing_from_outside(run: Path, tmp_path: Path) -> None:
    html = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'`]+", html)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert re.findall(r'(?:src|href)="([^"#][^"]*)"', html) == ["data:,"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", html)


def test_the_payload_holds_every_methods_credit_and_its_arithmetic(run: Path, tmp_path: Path) -> None:
    html = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    rollouts = payload(html, "rollouts-0")
    grpo = rollouts["methods"].index("grpo")
    assert rollouts["methods"][0] == "calibadv"
    wrong = rollouts["groups"][0]["rollouts"][1]
    turn = wrong["turns"][0]
    assert rollouts["groups"][0]["question"] == HOSTILE
    assert turn["query"] == POISON
    assert turn["credit"][grpo] == pytest.approx(-0.7071)
    note, ((first, second),) = turn["why"][grpo]
    assert note == ""
    assert first == ["reward - mean", -0.5, "0.00 - 0.50"]
    assert second[1] == pytest.approx(1.414, abs=1e-3)
    assert turn["c"] == pytest.approx(1 / 3, abs=1e-3)
    assert turn["kindOf"] == "SPARED"
    assert [rollouts["documents"][place]["id"] for place in rollouts["groups"][0]["silver"]] == ["a", "b"]
    assert len(rollouts["documents"]) == 5  # each once, though three groups read them


def test_a_run_without_stored_groups_or_evaluations_has_a_page_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "bare", [{"step": 1, "reward/mean": 0.5}])
    html = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert payload(html, "rollouts-0") is None
    (head,) = payload(html, "head")["runs"]
    assert (head["steps"], head["evaluation"]["rows"]) == (1, [])


def test_what_is_no_run_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no run's folder: it has no config\.toml"):
        write_report([tmp_path], tmp_path / "page.html")
    with pytest.raises(ValueError, match="nothing to report yet"):
        write_report([write_run(tmp_path / "a", [])], tmp_path / "page.html")
    with pytest.raises(ValueError, match="groups = -1"):
        write_report([tmp_path], tmp_path / "page.html", groups=-1)


def test_steps_are_thinned_evenly_with_both_ends() -> None:
    assert evenly_spaced([3, 5, 9], 3) == [3, 5, 9]
    assert evenly_spaced(range(0, 200, 5), 3) == [0, 100, 195]
    assert evenly_spaced([3, 5, 9], 1) == [3]
    assert evenly_spaced([3, 5, 9], 0) == []


def test_fewer_groups_are_shown_where_the_file_were_too_large(run: Path, tmp_path: Path) -> None:
    whole = write_report([run], tmp_path / "a.html").stat().st_size
    none = write_report([run], tmp_path / "b.html", groups=0).stat().st_size
    limit_mb = (whole + none) / 2e6
    small = write_report([run], tmp_path / "c.html", limit_mb=limit_mb)
    assert small.stat().st_size <= 1e6 * limit_mb


def test_a_judge_is_asked_once_of_the_groups_that_are_shown(run: Path, tmp_path: Path, server: JudgeServer) -> None:
    whole, half = (write_report([run], tmp_path / f"{n}.html", groups=n).stat().st_size for n in (4, 2))
    limit_mb = (whole + half) / 2e6  # halved once
    path = write_report([run], tmp_path / "a.html", groups=4, limit_mb=limit_mb, judge=Endpoint(server.url, "judge"))
    assert len(server.prompts) == 1  # of the groups' alike searches one has c > 0.5
    rollouts = payload(path.read_text(encoding="utf-8"), "rollouts-0")
    assert len(rollouts["groups"]) == 2
    assert sum(part["asked"] for part in rollouts["judged"]) == 2


def test_two_hundred_steps_with_sampled_groups_stay_below_ten_megabytes(tmp_path: Path) -> None:
    run = long_run(tmp_path / "long", 200)
    path = write_report([run], tmp_path / "page.html")
    rollouts = payload(path.read_text(encoding="utf-8"), "rollouts-0")
    assert len(rollouts["groups"]) == 160  # all of them
    assert path.stat().st_size < 10e6
