"""Where Ray's session and token go on machines that are not as Ray expects them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray

from calibadv.cluster import local_ray
from calibadv.cluster.ray_place import (
    LONGEST,
    RayStartFailed,
    fault_of,
    prepare,
    session_parent,
    token_fault,
    unwritable,
)
from workflows import command

NOWHERE = "/proc/nohome"  # not even root can make it


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A folder as schedulers make them, too long for a socket."""
    folder = tmp_path / "a_very_long_temporary_folder_name_as_schedulers_make_them" / "job_1355700_user"
    folder.mkdir(parents=True)
    return folder


def test_a_sockets_path_is_counted_with_what_ray_puts_before_it(tmp_path: Path) -> None:
    assert LONGEST == 39  # 107 - len("/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")
    assert fault_of(Path("/tmp")) == ""
    assert "bytes, and sockets in it allow 39" in fault_of(tmp_path / ("a" * 40))
    assert "bytes" in fault_of(Path("/tmp/" + "ß" * 20))  # 45 bytes in 25 characters


def test_a_long_tmpdir_is_passed_over_and_said(long: Path, caplog: Any) -> None:
    environment = {"TMPDIR": str(long), "RAY_AUTH_TOKEN": "t"}
    caplog.set_level("INFO")
    prepare(environment)
    assert environment["RAY_TMPDIR"] in ("/tmp", "/var/tmp", "/dev/shm") or "ray-" in environment["RAY_TMPDIR"]
    assert f"for TMPDIR = {long}: its path has" in caplog.text
    assert "RAY_TMPDIR names another" in caplog.text


@pytest.mark.parametrize("tmpdir", [NOWHERE, "/proc/1/nothing"])
def test_a_tmpdir_that_cannot_be_written_to_is_passed_over(tmpdir: str) -> None:
    parent, why = session_parent({"TMPDIR": tmpdir})
    assert str(parent) != tmpdir
    assert "cannot be written to" in why


def test_what_is_named_on_purpose_is_used_or_refused(long: Path) -> None:
    assert session_parent({"RAY_TMPDIR": "/tmp", "TMPDIR": str(long)}) == (Path("/tmp"), "")
    for given in (str(long), NOWHERE):
        with pytest.raises(ValueError, match=f"RAY_TMPDIR = {given} cannot hold Ray's session: .*e.g. RAY_TMPDIR=/tmp"):
            session_parent({"RAY_TMPDIR": given})


def test_no_place_at_all_says_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"nor can /tmp, /var/tmp, /dev/shm: set RAY_TMPDIR to a folder of at most 39"):
        session_parent({}, lambda _: "full")


def test_a_folder_that_would_be_made_is_judged_by_what_is_there(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "a" / "b") == ""
    (tmp_path / "file").write_text("")
    assert unwritable(tmp_path / "file" / "b") == f"{tmp_path / 'file'} is not a folder"
    assert "cannot be written to" in unwritable(Path(NOWHERE))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


# ---- the token ---------------------------------------------------------------------------------------------------


def test_without_a_home_the_token_lives_in_the_environment(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("HOME", NOWHERE)
    environment: dict[str, str] = {}
    caplog.set_level("INFO")
    prepare(environment)
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
    assert not environment["VLLM_CACHE_ROOT"].startswith(NOWHERE)
    assert "RAY_AUTH_TOKEN_PATH names a file" in caplog.text
    assert environment["RAY_AUTH_TOKEN"] not in caplog.text


def test_a_home_that_can_be_written_to_is_left_to_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environment: dict[str, str] = {}
    prepare(environment)
    assert environment == {}
    monkeypatch.setenv("HOME", NOWHERE)
    assert token_fault({"RAY_AUTH_MODE": "disabled"}) == ""


def test_a_token_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH = .* is not there: write a token there"):
        prepare({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})
    (tmp_path / "token").write_text("t")
    prepare({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})


def test_a_user_without_a_home_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert token_fault({}) == "this user has no home"


# ---- the start ---------------------------------------------------------------------------------------------------


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Exception]:
    """What Ray's next starts raise, in order; after them it starts."""
    raised: list[Exception] = []

    def init(**_: Any) -> None:
        if raised:
            raise raised.pop(0)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))  # so that nothing of the home's is written
    return raised


SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.mark.parametrize("error", [Exception(SLOW), ConnectionError(SLOW), TimeoutError(SLOW), RuntimeError(SLOW)])
def test_a_start_that_takes_too_long_is_tried_once_more(starts: list[Exception], error: Exception, caplog: Any) -> None:
    starts.append(error)
    local_ray.init_local_ray()
    assert caplog.text.count("it is tried once more") == 1


def test_a_second_failure_is_one_line_and_an_exit_code_of_its_own(
    starts: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    starts += [Exception(SLOW), Exception(SLOW)]
    with pytest.raises(RayStartFailed, match="Ray did not start in 2 attempts"):
        local_ray.init_local_ray()
    starts += [Exception(SLOW), Exception(SLOW)]

    def main() -> int:
        local_ray.init_local_ray()
        return 0

    assert command.run_command(main) == command.RAY_DID_NOT_START == 6
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: Ray did not start in 2 attempts (The current node timed out")


@pytest.mark.parametrize("error", [ValueError("no such option"), PermissionError(13, "no")])
def test_what_a_second_start_would_not_mend_is_raised_at_once(starts: list[Exception], error: Exception) -> None:
    starts.append(error)
    with pytest.raises(type(error)):
        local_ray.init_local_ray()


@pytest.mark.integration
def test_ray_starts_with_a_long_tmpdir_and_no_home(long: Path) -> None:
    import subprocess
    import sys

    code = (
        "import logging, os, ray\nlogging.basicConfig(level=20)\n"
        "from calibadv.cluster.local_ray import init_local_ray\n"
        "init_local_ray(num_cpus=1, log_to_driver=False)\n"
        "print('answer', ray.get(ray.remote(num_cpus=0)(lambda: 42).remote()))\n"
        "from ray._private.authentication.authentication_utils import is_token_auth_enabled\n"
        "print('token', is_token_auth_enabled())\n"
    )
    environment = {**os.environ, "TMPDIR": str(long), "HOME": NOWHERE}
    for name in ("RAY_TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "answer 42" in done.stdout
    assert "token True" in done.stdout
