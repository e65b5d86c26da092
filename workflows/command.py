"""What every command does around its `main`: logging, a polite kill that ends it as Ctrl-C does, and exit codes."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from calibadv.cluster.ray_place import RayStartFailed
from calibadv.http_client import keep_direct
from calibadv.tracking.starting import draws, said_starting

log = logging.getLogger("workflows.command")

RAY_DID_NOT_START = 6


def command_parser(description: str | None, **more: Any) -> argparse.ArgumentParser:
    """A command's parser: its help is the module's, as it stands there, and no flag may be shortened."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw, allow_abbrev=False, **more)


def run_command(main: Callable[[], int]) -> int:
    """The exit code of `main`: its own, 2 for input that was refused, 6 where Ray did not start (both said in one
    line), 130 for an interruption."""
    said_starting()
    logging.basicConfig(level=logging.WARNING, handlers=[_log_handler()], force=True)
    for ours in ("calibadv", "serve", "workflows", "benchmarks"):
        logging.getLogger(ours).setLevel(logging.INFO)
    keep_direct()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill saves what was learned, as Ctrl-C does
    try:
        return main()
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except RayStartFailed as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return RAY_DID_NOT_START
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:
        if error.code == 1:  # never ours: a library ends the process, and Python says nothing of who did
            log.exception("the command was ended from inside with exit code 1")
        raise


def _log_handler() -> logging.Handler:
    """To stderr; where nobody watches it as it comes (a job, a file), each line has its time of day."""
    handler = logging.StreamHandler()
    watched = draws(sys.stderr.isatty())
    handler.setFormatter(logging.Formatter("%(message)s" if watched else "%(asctime)s %(message)s", "%H:%M:%S"))
    return handler
