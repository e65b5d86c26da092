"""The terminal view, live and plain: the same run told in two ways."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from calibadv.tracking.live_view import LiveView, sparkline
from calibadv.tracking.plain_view import PlainView
from calibadv.tracking.view import RunSummary, TerminalView, open_view, time_shares
from tests.tracking.fake_run import history, record

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
SUMMARY = RunSummary(
    before={"f1": 0.2, "format": 0.9},
    after={"f1": 0.5, "format": 0.8, "searches": 2.0},
    steps=12,
    seconds=125.0,
    folder=Path("runs/demo"),
    rollout=record(),
    hints=("mlflow ui",),
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
        "step 1/12  reward 0.050  F1 0.060  entropy 1.90  searches 1.10  tokens/s 1500  "
        "rollout 60%, learn 30%, other 10%"
    )
    assert "advantage -1.00 → -0.50  c = 0.50" in lines[-1]
    assert "\x1b" not in caplog.text


def test_a_stage_that_fails_is_said_in_plain_mode_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RuntimeError):
        fail(PlainView(1))
    assert "engine: failed after" in caplog.text


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_the_plain_view_is_taken_off_a_terminal_and_where_colour_is_unwanted(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_view(1, console=Console(file=io.StringIO())), PlainView)
    assert isinstance(open_view(1, console=terminal()), LiveView)
    monkeypatch.setenv(variable, "1")
    assert isinstance(open_view(1, console=terminal()), PlainView)
    assert isinstance(open_view(1, console=terminal(), plain=False), LiveView)


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
