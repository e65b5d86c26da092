"""Removes torch's hash from a lock file: its CPU build is served by several indexes, as different files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

path = Path(sys.argv[1])
text, found = re.subn(r"^(torch==\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", r"\1\n", path.read_text(), flags=re.MULTILINE)
if found != 1:
    sys.exit(f"error: {path} should pin torch once, found {found}")
path.write_text(text)
