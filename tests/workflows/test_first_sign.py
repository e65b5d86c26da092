"""A command says that it is there before it imports what takes seconds; seen from outside, by the order of imports."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(
    p
    for folder in ("workflows", "benchmarks")
    for p in (ROOT / folder).glob("*.py")
    if "sys.exit(run_command(main))" in p.read_text()
)
OURS = {"benchmarks", "calibadv", "calibadv.garbage", "calibadv.tracking", "calibadv.tracking.starting"}


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | more


def imported_before_the_first_line(command: list[str]) -> tuple[set[str], str]:
    """Modules that were imported when the first line that is no import's came, and that line."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stderr is not None
    modules = set()
    try:
        for line in process.stderr:
            if not line.startswith("import time:"):
                return modules, line
            modules.add(line.rpartition("|")[2].strip())
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    return modules, ""


def test_there_are_commands() -> None:
    assert {"train", "compare", "evaluate"} < {command.stem for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_only_the_standard_library_is_imported_before_the_first_line(command: Path) -> None:
    bare, _ = imported_before_the_first_line(["-c", "import sys; sys.stderr.write('now\\n')"])
    folder = command.parent.name
    name = folder if command.stem == "__main__" else command.stem
    run = [str(command)] if folder == "workflows" else ["-m", f"{folder}.{command.stem}"]
    modules, line = imported_before_the_first_line([*run, "--help"])
    assert re.match(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \S* ?{name}: loading its libraries$", line), line
    others = {m for m in modules - bare - OURS if m.partition(".")[0] not in sys.stdlib_module_names}
    assert others == set()


def read_until(terminal: int, wanted: bytes, timeout_s: float = 300.0) -> bytes:
    seen, deadline = b"", time.monotonic() + timeout_s
    while wanted not in seen:
        left_s = deadline - time.monotonic()
        assert left_s > 0, seen
        assert select.select([terminal], [], [], left_s)[0], seen
        seen += os.read(terminal, 4096)
    return seen


SCRIPT = """
from calibadv.tracking.starting import said_starting, say_starting
say_starting("train")
import sys, time
time.sleep(float(sys.argv[1]))
said_starting()
print("imported")
"""


def on_terminal(seconds: float) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(seconds)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    return process, ours


def test_on_a_terminal_the_line_moves_and_goes_away() -> None:
    process, terminal = on_terminal(0.5)
    try:
        seen = read_until(terminal, b"imported")
    finally:
        process.wait()
        os.close(terminal)
    frames = set(re.findall("([⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]) train: loading its libraries", seen.decode()))
    assert len(frames) > 1
    assert b"\r\x1b[2Kimported" in seen


def test_ctrl_c_while_libraries_load_ends_at_once_without_a_traceback() -> None:
    process, terminal = on_terminal(60)
    try:
        seen = read_until(terminal, b"loading")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        while select.select([terminal], [], [], 0)[0]:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # Linux's word for the end of a terminal
                break
    finally:
        process.kill()
        os.close(terminal)
    assert b"Traceback" not in seen
