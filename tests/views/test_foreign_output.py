"""What libraries write while the live view has the terminal; in a process of its own, on a terminal of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys
from pathlib import Path
from calibadv.views.foreign_output import ForeignOutput
foreign = ForeignOutput()
print("(raylet) of Python")
os.write(2, b"of C++\\n")
if len(sys.argv) > 1:
    foreign.keep(Path(sys.argv[1]))
os.system("echo of a child")
foreign.terminal.write("ours\\n")
foreign.terminal.flush()
foreign.close()
print("after")
"""


def shown(*arguments: str) -> str:
    """All that came to the terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:  # Linux's word for the end of a terminal
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0, text
    return text.decode().replace("\r\n", "\n")


def test_it_goes_to_the_run_s_file_and_only_the_view_writes_to_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_text("of an earlier attempt\n")
    assert shown(str(log)) == "ours\nafter\n"
    kept = log.read_text().splitlines()
    assert kept[0] == "of an earlier attempt"
    assert sorted(kept[1:]) == ["(raylet) of Python", "of C++", "of a child"]


def test_it_is_shown_at_the_end_where_the_run_never_had_a_folder() -> None:
    text = shown()
    assert text.startswith("ours\n")
    assert sorted(text.splitlines()) == ["(raylet) of Python", "after", "of C++", "of a child", "ours"]


def test_it_is_shown_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    assert "of C++" in shown(str(tmp_path / "missing" / "output.log"))
