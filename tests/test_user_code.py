"""Code of the user's that a setting names."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from calibadv.cluster.shipped import Shipped
from calibadv.user_code import digest, load, names_code, sources


def test_what_has_a_colon_names_code() -> None:
    assert names_code("reward.py:reward")
    assert not names_code("f1")


def test_a_file_is_loaded_once_and_its_module_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("CALLS = []\nCALLS.append(1)\ndef reward(q, t):\n    return len(CALLS)\n")
    monkeypatch.chdir(tmp_path)
    reward = load("mine.py:reward", "reward.outcome")
    assert reward is load(f"{tmp_path}/mine.py:reward", "search.tool")
    assert reward(None, None) == 1
    assert Path(sources()[-1].file) == tmp_path / "mine.py"


def test_the_digest_is_that_of_the_text_as_it_was_imported(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("def reward(q, t):\n    return 1\n")
    second.write_text("def reward(q, t):\n    return 2\n")
    before = digest(f"{first}:reward", "reward.outcome")
    first.write_text(second.read_text())
    assert digest(f"{first}:reward", "reward.outcome") == before
    assert digest(f"{second}:reward", "reward.outcome") != before
    assert len(digest("calibadv.rewards.answer:exact_match", "reward.outcome")) == len(before) == 32


def test_a_byte_order_mark_before_a_file_is_no_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"\xef\xbb\xbfdef reward(question, trajectory):\n    return 1.0\n")
    assert load(f"{tmp_path / 'mine.py'}:reward", "reward.outcome")(None, None) == 1.0


def test_a_traceback_names_the_users_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def reward(q, t):\n    raise KeyError('served')\n")
    with pytest.raises(KeyError, match="served") as raised:
        load(f"{tmp_path}/mine.py:reward", "reward.outcome")(None, None)
    assert str(raised.traceback[-1].path) == f"{tmp_path}/mine.py"
    assert raised.traceback[-1].lineno == 1  # counted from 0


def test_a_module_is_imported_by_its_name() -> None:
    assert load("calibadv.rewards.answer:exact_match", "reward.outcome")("a", "A") == 1.0


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        ("", "gone.py:reward", r"reward\.outcome = 'gone\.py:reward': there is no file /.*/gone\.py"),
        ("def rewards(): ...", "mine.py:reward", r"there is no 'reward' in mine\.py \(did you mean 'rewards'\?\)"),
        ("import nowhere", "mine.py:reward", r"cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("import sys; sys.exit(3)", "mine.py:reward", r"cannot be imported: SystemExit: 3"),
        ("", "mine.py:", r"expected package\.module:name or path/file\.py:name, e\.g\. reward\.py:reward"),
        ("", "no_such_package:reward", r"cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reference: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        load(reference, "reward.outcome")


MINE = """
import threading
from functools import cache
from pathlib import Path

LOCK = threading.Lock()  # as an open client has
HERE = Path(__file__).name

@cache
def table():
    return {"oslo": 1.0}

def reward(question, trajectory):
    with LOCK:
        return table()[question]

def made(scale):
    def inner(question):
        return scale * reward(question, None)
    return inner
"""


def test_it_runs_in_a_process_that_knows_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    reward, made = (load(f"{tmp_path}/mine.py:{name}", "reward.outcome") for name in ("reward", "made"))
    (tmp_path / "sent").write_bytes(pickle.dumps(Shipped((reward, made(0.5)))))
    (tmp_path / "mine.py").unlink()
    code = (
        "import pickle, sys; reward, inner = pickle.load(open(sys.argv[1], 'rb')).value; "
        "print(reward('oslo', None), inner('oslo'), sys.modules[reward.__module__].HERE)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "sent")], capture_output=True, text=True)
    assert done.stdout.split() == ["1.0", "0.5", "mine.py"], done.stderr
