"""What every command does around its `main`."""

from __future__ import annotations

import sys

import pytest

from workflows.command import run_command


def test_a_library_that_ends_the_process_is_told_by_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    def library() -> int:
        sys.exit(1)

    with pytest.raises(SystemExit, match="1"):
        run_command(library)
    said = capsys.readouterr().err
    assert "the command was ended from inside with exit code 1" in said
    assert "in library" in said


def test_what_argparse_says_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: sys.exit(2))
    assert capsys.readouterr().err == ""
