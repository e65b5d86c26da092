"""The terminal view, live and plain: the same run told in two ways."""

from __future__ import annotations

import io
import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from calibadv.tracking.record import CallRecord
from calibadv.views.live import LiveView, sparkline
from calibadv.views.open import open_view
from calibadv.views.plain import PlainView
from calibadv.views.rollout import comparison_table, summary_text
from calibadv.views.summary import Activity, NextSteps, RunSummary, TerminalView, time_shares
from tests.tracking.fake_run import history, record

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
SUMMARY = RunSummary(
    before={"f1": 0.2, "format": 0.9},
    after={"f1": 0.5, "format": 0.8, "searches": 2.0},
    steps=12,
    seconds=125.0,
    folder=Path("runs/demo"),
    rollout=record(),
    next=NextSteps("mlflow ui"),
)


@pytest.fixture(autouse=True)
def _interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor")


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def run(view: TerminalView) -> None:
    with view:
        view.stage("engine", "vLLM loads the policy")
        view.stage_done("4 M parameters")
        for metrics in history():
            view.step(metrics)
        view.finish(SUMMARY)


def fail(view: TerminalView) -> None:
    with view:
        view.stage("engine", "vLLM")
        raise RuntimeError("no engine")


def test_the_live_view_shows_stages_numbers_time_and_the_end() -> None:
    console = terminal()
    run(LiveView(12, console))
    text = written(console)
    for expected in ("vLLM loads the policy", "4 M parameters", "12/12", "0.720", "1,500", "rollout 60%", "learn 30%"):
        assert expected in text
    for expected in ("12 steps in 2 min 05 s", "+0.300", "-0.100", "The Salt Road", "runs/demo", "mlflow ui"):
        assert expected in text


def test_the_live_view_colours_the_rollout_with_its_credit() -> None:
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=100)
    with LiveView(1, console) as view:
        view.finish(SUMMARY)
    text = console.export_text(styles=False)
    assert "1 search  advantage -1.00 → -0.50  c = 0.50" in text
    assert "2 answer  advantage -1.00" in text
    assert "● The Salt Road  (silver)" in text
    assert "○ d9" in text


def test_a_call_is_shown_with_what_the_tool_said() -> None:
    search, answer = record().turns
    called = replace(search, kind="call", query=None, documents=(), text="<think>a</think>\nadd(1, 2)")
    called = replace(called, calls=(CallRecord("add", "3\x1b[2J"),))
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=100)
    console.print(summary_text(replace(SUMMARY, rollout=replace(record(), turns=(called, answer)))))
    text = console.export_text(styles=False)
    assert "1 call" in text
    assert "add(1, 2)" in text
    assert "add: 3 [2J" in text


def test_the_cursor_comes_back_and_logging_is_restored_after_an_exception() -> None:
    console, root, own = terminal(), logging.getLogger(), logging.StreamHandler(io.StringIO())
    root.addHandler(own)
    before = list(root.handlers)
    try:
        with pytest.raises(RuntimeError):
            fail(LiveView(3, console))
        assert sorted(map(id, root.handlers)) == sorted(map(id, before))
    finally:
        root.removeHandler(own)
    text = written(console)
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR) >= 0
    assert "✗" in text


def test_log_lines_pass_through_the_live_console() -> None:
    console = terminal()
    with LiveView(3, console) as view:
        view.step(history()[0])
        logging.getLogger("calibadv.somewhere").warning("one engine was restarted")
    assert "one engine was restarted" in written(console)


def test_the_plain_view_is_log_lines_without_escape_codes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(PlainView(12))
    lines = [entry.getMessage() for entry in caplog.records]
    assert lines[0] == "engine: vLLM loads the policy"
    assert lines[1].startswith("engine: done in")
    assert lines[2] == (
        "step 1/12  reward 0.050  F1 0.060  entropy 1.90  searches 1.10  tokens/s 1,500  "
        "rollout 60%, learn 30%, other 10%"
    )
    assert "advantage -1.00 → -0.50  c = 0.50" in lines[-1]
    assert lines[-1].splitlines()[-1].split() == ["searches", "–", "2.000"]  # the table is the last of all
    assert "\x1b" not in caplog.text


def test_a_stage_that_fails_is_said_in_plain_mode_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RuntimeError):
        fail(PlainView(1))
    assert "engine: failed after" in caplog.text


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("TERM", ""), ("CI", "1")])
def test_the_plain_view_is_taken_off_a_terminal_and_where_nothing_can_be_drawn_over(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_view(1, console=Console(file=io.StringIO())), PlainView)
    assert isinstance(open_view(1, console=terminal()), LiveView)
    monkeypatch.setenv(variable, value)
    assert isinstance(open_view(1, console=terminal()), PlainView)
    assert isinstance(open_view(1, console=terminal(), plain=False), LiveView)


def screen(view: LiveView, console: Console) -> str:
    """What the view draws at this moment, without styles."""
    paper = Console(file=io.StringIO(), width=console.width)  # not the one that its timer draws on
    paper.print(view.draw())
    return written(paper)


def drawn(width: int, height: int = 40) -> str:
    """A run in the middle of a step, on a terminal of that size."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="truecolor")
    with LiveView(205, console) as view:
        for number in range(8):
            view.stage(f"stage {number}", "what takes the time")
            view.stage_done("what came of it, in a note that is longer than sixty columns are wide")
        view.follow(lambda: Activity("the rollouts of step 13", 72.0, "130 of 512 questions are in, 731 rollouts done"))
        for metrics in history():
            view.step(metrics | {"time/step_s": 809.0, "eval/f1": 0.6}, left_s=150_000.0)
        return screen(view, console)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_number_is_there_at_any_width(width: int) -> None:
    text = drawn(width)
    flat = " ".join(text.split())
    for expected in (
        *("12/205", "41:40:00 left", "the rollouts of step 13", "1:12", "130 of 512 questions", "731 rollouts"),
        *("reward", "F1", "held-out F1", "entropy", "searches", "s a step", "tokens/s", "F1 so far"),
        *("0.600", "0.720", "0.80", "2.20", "809.0", "1,500", "rollout 60%", "learn 30%", "other 10%"),
    ):
        assert expected in flat, expected
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text[text.index("12/205") :]  # a note of the start may be cut


def test_a_low_terminal_loses_start_up_stages_and_no_numbers() -> None:
    text = drawn(80, height=18)
    assert "stage 7" in text
    assert "stage 1" not in text
    assert len(text.splitlines()) <= 18
    assert "tokens/s" in text


def test_no_color_keeps_the_live_view_and_everything_that_colour_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    view = open_view(12, console=console)
    assert isinstance(view, LiveView)
    run(view)
    text = written(console)
    assert "rollout 60%" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)  # no colour of letters


@pytest.mark.parametrize("width", [60, 100])
def test_the_end_keeps_commands_whole_the_legend_and_the_table_last(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    link = "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef"
    console.print(summary_text(replace(SUMMARY, next=NextSteps("make mlflow", link))))
    text = written(console)
    assert link in text.replace("\n", "")
    assert "silver: a document that a correct rollout" in " ".join(text.split())
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines[-3:]] == ["F1", "format", "searches"]
    assert lines[-3] == ["F1", "0.200", "0.500", "+0.300"]


def test_a_long_run_is_told_in_hours() -> None:
    assert comparison_table(replace(SUMMARY, seconds=166_000.0)).title == "12 steps in 46 h 06 min"


def test_a_start_up_stage_shows_how_far_it_is() -> None:
    console = terminal()
    with LiveView(3, console) as view:
        view.follow(lambda: Activity("the search app's start", 4.0, "1,024 of 2,408 documents are embedded"))
        view.stage("Search", "dense index of the corpus")
        assert "1,024 of 2,408 documents are embedded" in screen(view, console)


def test_the_plain_view_says_what_happens_when_nothing_else_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with PlainView(3, quiet_s=0.01) as view:
        view.follow(lambda: Activity("the rollouts of step 1", 65.0, "3 of 8 questions are in"))
        while len(caplog.messages) < 2:
            time.sleep(0.005)
    assert caplog.messages[0] == "the rollouts of step 1, for 1:05: 3 of 8 questions are in"


def test_a_step_in_a_job_log_has_its_seconds_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    PlainView(16).step({"step": 1.0, "reward/f1": 0.25, "time/step_s": 41.25}, left_s=3725.0)
    assert caplog.messages == ["step 1/16  1:02:05 left  F1 0.250  s a step 41.2"]


def test_sampled_escape_codes_do_not_reach_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    values = record().to_dict() | {"question": "who\x1b[2J?", "question_id": "[bold]x"}
    hostile = type(record()).from_dict(values)
    PlainView(1).finish(RunSummary({}, {}, 1, 1.0, Path("runs/x"), rollout=hostile))
    assert "\x1b" not in caplog.text
    assert "[bold]x" in caplog.text


def test_time_shares_leave_out_what_took_no_time() -> None:
    assert time_shares({"rollout": 3.0, "learn": 1.0, "eval": 0.0}) == {"rollout": 0.75, "learn": 0.25}
    assert time_shares({"rollout": 0.0}) == {}


def test_sparkline_spans_zero_to_one() -> None:
    assert sparkline([0.0, 0.5, 1.0, 2.0]) == "▁▅██"
    assert sparkline([0.0] * 50 + [1.0] * 51, width=3) == "▁██"
