"""What libraries write past our own view (Ray's and DeepSpeed's C++ and print lines), kept in a file."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, TextIO


class ForeignOutput:
    """While it is open, file descriptors 1 and 2 are a file; `terminal` is where the view writes.

    The file is a nameless one until `keep` names it. What the nameless one holds is written to stderr on the way out:
    nothing is lost where the run ends before it has a folder.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = [os.dup(number) for number in (1, 2)]
        self.terminal: TextIO = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
        self.path: Path | None = None
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._redirect()

    def keep(self, path: Path) -> None:
        """From here on the output is appended to `path`, with what there is already. A full disk leaves it as it is."""
        try:
            named = path.open("ab", buffering=0)
        except OSError:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        before, self._file, self.path = self._file, named, path
        self._redirect()
        before.seek(0)
        try:
            shutil.copyfileobj(before, named)
        except OSError:
            pass
        finally:
            before.close()

    def close(self) -> None:
        """Gives the descriptors back."""
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        if self.path is None:
            self._file.seek(0)
            sys.stderr.write(self._file.read().decode(errors="replace"))
            sys.stderr.flush()
        self._file.close()
        self.terminal.close()

    def _redirect(self) -> None:
        for number in (1, 2):
            os.dup2(self._file.fileno(), number)
