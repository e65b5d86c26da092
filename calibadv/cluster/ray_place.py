"""Where a local Ray keeps its session and its token: the usual places, or others where those cannot be used.

Schedulers set a TMPDIR too long for the path of a Unix socket, and containers a home that nobody can write to.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, MutableMapping
from pathlib import Path

logger = logging.getLogger(__name__)

LONGEST_SOCKET = 107  # bytes of a path, Linux's limit; macOS has 103
# What Ray 2.60 puts below its folder: ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store
SOCKET_BELOW = len("/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")
LONGEST = LONGEST_SOCKET - SOCKET_BELOW
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")

Environment = MutableMapping[str, str]


class RayStartFailed(RuntimeError):
    """Ray could not be started here, nor at the second attempt. Nothing of it runs."""


class EnginesDidNotStart(RayStartFailed):
    """Ray runs, and not all engines were there in time."""


def fault_of(folder: Path) -> str:
    """Why Ray cannot make its session in the folder; "" if it can."""
    if len(os.fsencode(folder)) > LONGEST:
        return f"its path has {len(os.fsencode(folder))} bytes, and sockets in it allow {LONGEST}"
    inner = folder / "ray"
    return unwritable(inner if inner.exists() else folder)


def unwritable(folder: Path) -> str:
    """Why nothing can be written in the folder, or where it would be made; "" if it can."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"{there} cannot be written to ({error.strerror})"


def session_parent(environment: Environment, fault_of: Callable[[Path], str] = fault_of) -> tuple[Path, str]:
    """The folder in which Ray makes `ray/`, and why it is not the usual one ("" where it is).

    ValueError for a RAY_TMPDIR that cannot be used, and where no folder can.
    """
    if given := environment.get("RAY_TMPDIR", ""):
        if fault := fault_of(Path(given)):
            raise ValueError(f"RAY_TMPDIR = {given} cannot hold Ray's session: {fault}; e.g. RAY_TMPDIR=/tmp")
        return Path(given), ""
    usual = Path(environment.get("TMPDIR") or "/tmp")
    fault = fault_of(usual)
    if not fault:
        return usual, ""
    own = [Path(folder) / f"ray-{os.geteuid()}" for folder in _SHORT]  # where another user's /tmp/ray is in the way
    for folder in (*map(Path, _SHORT), *own):
        if folder != usual and not fault_of(folder):
            return folder, f"TMPDIR = {usual}: {fault}"
    raise ValueError(
        f"TMPDIR = {usual} cannot hold Ray's session ({fault}), nor can {', '.join(_SHORT)}: set RAY_TMPDIR to a "
        f"folder of at most {LONGEST} characters that can be written to"
    )


def token_file(environment: Environment) -> Path | None:
    """The file of Ray's token: the one that RAY_AUTH_TOKEN_PATH names, or the home's; None where there is no home."""
    if given := environment.get("RAY_AUTH_TOKEN_PATH", ""):
        return Path(given).expanduser()
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # neither HOME nor an entry for the user
        return None


def token_fault(environment: Environment) -> str:
    """Why Ray would find no token and could keep none; "" where it has one, can make one, or needs none."""
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled" or environment.get("RAY_AUTH_TOKEN"):
        return ""
    path = token_file(environment)
    if path is None:
        return "this user has no home"
    if path.is_file():
        return "" if os.access(path, os.R_OK) else f"{path} cannot be read"
    if environment.get("RAY_AUTH_TOKEN_PATH"):
        return f"RAY_AUTH_TOKEN_PATH = {path} is not there"
    return unwritable(path.parent)


def spare_home(environment: Environment) -> None:
    """Where the home cannot be written to, gives the libraries that compile kernels into it another place."""
    home = Path(os.path.expanduser("~"))
    if not unwritable(home):
        return
    place = Path(tempfile.gettempdir()) / f"calibadv-{os.geteuid()}"
    for name in ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"):
        environment.setdefault(name, str(place / name.lower()))


def prepare(environment: Environment) -> None:
    """Sets what Ray needs to start here, and says so. ValueError where that is the user's to decide.

    Without a home the token lives in the environment of this process and its children, which others cannot read.
    """
    parent, why = session_parent(environment)
    if why:
        parent.mkdir(mode=0o700, exist_ok=True)
        environment["RAY_TMPDIR"] = str(parent)
        logger.info(
            "Ray's session, spilled objects too, goes to %s/ray, for %s (RAY_TMPDIR names another)", parent, why
        )
    spare_home(environment)
    if fault := token_fault(environment):
        if environment.get("RAY_AUTH_TOKEN_PATH"):
            raise ValueError(f"{fault}: write a token there (`ray get-auth-token --generate`), or unset it")
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        logger.info("Ray's token lives as long as this run, for %s (RAY_AUTH_TOKEN_PATH names a file)", fault)
