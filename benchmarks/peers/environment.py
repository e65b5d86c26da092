"""An environment of its own for a peer: its packages over this one's, so that torch and transformers are the same."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "peers"


def environment(name: str, packages: Sequence[str], folder: Path = FOLDER) -> dict[str, str]:
    """Variables of a process that imports the packages; they are fetched once and never enter `.venv` or the lock.

    CalledProcessError where they cannot be fetched.
    """
    place = folder / name
    if not place.is_dir():
        log.info("fetching %s into %s", ", ".join(packages), place)
        new = place.with_name(f"{name}.new")
        shutil.rmtree(new, ignore_errors=True)
        fetch = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", sys.executable]
        subprocess.run([*fetch, "--target", str(new), "--no-deps", *packages], check=True)
        new.rename(place)
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
