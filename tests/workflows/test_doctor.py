"""The doctor's command: exit codes, what is shown, and that no check can break it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from rich.console import Console

from calibadv.config import ConfigError
from calibadv.doctor.checks import checks
from calibadv.doctor.cluster import cluster
from calibadv.doctor.examine import Check, examine
from calibadv.doctor.finding import Finding, State, exit_code, failed, passed, warned
from calibadv.doctor.report import report
from calibadv.doctor.subject import Subject
from workflows import doctor
from workflows.command import run_command

SUBJECT = doctor.parse([])


def of(name: str, *findings: Finding | BaseException) -> Check:
    """A check that finds what is given, and raises what is an exception."""

    def look(_: Subject) -> Iterator[Finding]:
        for finding in findings:
            if isinstance(finding, BaseException):
                raise finding
            yield finding

    return Check(name, look)


def found(*checks: Check) -> list[Finding]:
    return list(examine(checks, SUBJECT))


def shown(*checks: Check, terminal: bool) -> str:
    page = io.StringIO()
    report(checks, SUBJECT, Console(file=page, force_terminal=terminal, width=100, color_system=None))
    return page.getvalue()


# ---- the arguments -----------------------------------------------------------------------------------------------


def test_without_arguments_the_pocket_recipe_is_examined() -> None:
    assert (SUBJECT.config.data.train, SUBJECT.deep) == ("pocket", False)


def test_recipe_overrides_and_deep_may_stand_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[run]\nsteps = 3\n")
    subject = doctor.parse(["--run.seed", "4", "--deep", "--config", str(tmp_path / "mine.toml")])
    assert (subject.config.run.steps, subject.config.run.seed, subject.deep) == (3, 4, True)


@pytest.mark.parametrize(
    "arguments", [["--run.sed", "1"], ["--config", "/nowhere.toml"], ["--deeper"], ["deep"], ["--run.steps", "0"]]
)
def test_wrong_arguments_are_refused_before_anything_is_looked_at(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        doctor.parse(arguments)
    assert run_command(lambda: doctor.main(arguments, [of("look", AssertionError("looked at"))])) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("error: ")) == ("", True)


# ---- the exit code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([passed("a", "well")], 0),
        ([passed("a", "well"), warned("b", "so so", "mend")], 0),
        ([warned("b", "so so", "mend"), failed("c", "ill", "mend")], 1),
        ([], 0),
    ],
)
def test_only_a_failure_changes_the_exit_code(
    findings: list[Finding], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(findings) == code
    assert doctor.main([], [of("check", *findings)]) == code
    assert f"{code} failed" in capsys.readouterr().out


def test_no_bar_of_a_download_tears_the_report() -> None:
    enable_progress_bars()
    try:
        doctor.main([], [])
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()


def test_a_finding_that_did_not_pass_says_what_to_do() -> None:
    with pytest.raises(AssertionError, match="no word of what to do"):
        Finding("disk", State.WARN, "full")


# ---- what a check may do -----------------------------------------------------------------------------------------


def test_findings_come_in_the_order_of_the_checks() -> None:
    assert found(of("a", passed("1", "x"), passed("2", "y")), of("b", passed("3", "z"))) == [
        passed("1", "x"),
        passed("2", "y"),
        passed("3", "z"),
    ]


def test_an_exception_is_a_failed_line_and_the_others_go_on() -> None:
    first, broken, last = found(of("a", passed("1", "x"), RuntimeError("no\n  way")), of("b", passed("2", "y")))
    assert (first.said, last.said) == ("x", "y")
    assert (broken.name, broken.state, broken.said) == ("a", State.FAIL, "RuntimeError: no way")
    assert broken.remedy


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_what_is_no_exception_is_a_failed_line_too(error: BaseException) -> None:
    (broken,) = found(of("a", error))
    assert (broken.state, broken.said.partition(":")[0]) == (State.FAIL, type(error).__name__)


def test_our_own_errors_are_said_in_their_own_words() -> None:
    (broken,) = found(of("data", ValueError("q.jsonl: no such file. Check the path.")))
    assert broken.said == "q.jsonl: no such file. Check the path."


def test_the_same_reason_is_given_once() -> None:
    error = ValueError("q.jsonl: no such file")
    first, second = found(of("data", error), of("search", error))
    assert first.said == "q.jsonl: no such file"
    assert (second.name, second.state, second.said) == ("search", State.FAIL, "not looked at, for a reason above")


def test_a_check_that_hangs_is_left_at_its_limit_with_what_it_found() -> None:
    never = threading.Event()

    def hangs(_: Subject) -> Iterator[Finding]:
        yield passed("1", "x")
        never.wait()

    first, late, last = found(Check("slow", hangs, limit_s=0.2), of("b", passed("2", "y")))
    never.set()
    assert (first.said, last.said) == ("x", "y")
    assert (late.name, late.state, late.said) == ("slow", State.FAIL, "no answer within 0.2 s")


def test_every_check_has_a_name_of_its_own_and_a_limit() -> None:
    all_of_them = checks(doctor.means())
    assert len({check.name for check in all_of_them}) == len(all_of_them) == 15
    assert all(check.limit_s > 0 for check in all_of_them)


# ---- the report --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_the_report_has_every_line_what_to_do_and_a_verdict(terminal: bool) -> None:
    said = shown(
        of("a", passed("disk", "room"), warned("port", "taken", "free it"), failed("x", "ill", "mend it")),
        terminal=terminal,
    )
    for words in ("disk", "room", "port", "taken", "free it", "mend it", "1 passed, 1 warned, 1 failed"):
        assert words in said


def test_plain_lines_stand_alone_and_are_not_broken() -> None:
    said = shown(of("a", failed("disk", "full " * 60 + "[bold]x", "make room")), terminal=False)
    first, second, last = said.splitlines()
    assert first == f"fail  disk: {'full ' * 60}[bold]x"
    assert second == "      -> make room"
    assert last == "0 passed, 0 warned, 1 failed: mend what failed before a long run"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_server_says_cannot_steer_the_terminal(terminal: bool) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b5m[link=http://a]click[/link]"
    said = shown(of("a", failed(f"n{evil}", evil, evil)), terminal=terminal)
    assert "owned" in said
    assert "[link=http://a]click[/link]" in said
    assert not {"\x07", "\x9b", "\x1b]", "\x1b[2J"} & {
        piece for piece in ("\x07", "\x9b", "\x1b]", "\x1b[2J") if piece in said
    }


def test_nothing_of_ray_is_started_by_a_shallow_look() -> None:
    looked = cluster(SUBJECT, joined=lambda _: pytest.fail("a cluster is joined"), wanted_cpus=lambda _: 1.0)
    assert [finding.state for finding in looked] == [State.PASS]
    assert not ray.is_initialized()
