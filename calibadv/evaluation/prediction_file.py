"""predictions.jsonl while questions are asked: what is in it is not asked again, whatever ended the last call."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from calibadv.data.errors import DataError
from calibadv.evaluation.prediction import Prediction
from calibadv.files import write_text
from calibadv.json_lines import json_line, whole_lines

log = logging.getLogger(__name__)


class PredictionFile:
    """Appends predictions, a line each, at once on disk. A context manager: one process at a time may write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> PredictionFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ValueError(
                f"{self.path} is being written by another process: wait for it, or give another --out"
            ) from None
        _drop_torn_line(self.path)
        self._file = file
        return self

    def append(self, prediction: Prediction) -> None:
        """Write one line, so that it survives this process."""
        assert self._file is not None, "append belongs into the with block"
        self._file.write(json_line(prediction.to_dict()))
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None


def read_predictions(path: Path) -> dict[str, Prediction]:
    """The predictions of a file by question id, {} if it is missing; of one id the last line counts.

    A last line without its line end was torn by a crash and is left out; any other that cannot be read is a DataError.
    """
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(whole_lines(path.read_bytes())[0], start=1):
        try:
            prediction = Prediction.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}",
                f"no prediction of ours ({error})",
                "the fields of docs/evaluation.md",
                "Delete the line, and its question is asked again.",
            ) from None
        found[prediction.id] = prediction
    return found


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """The whole file anew, in one move: a reader never meets half of it."""
    write_text(path, "".join(json_line(prediction.to_dict()) for prediction in predictions))


def _drop_torn_line(path: Path) -> None:
    """Cut the file after its last whole line: what is appended then does not run into a torn one."""
    content = path.read_bytes()
    _, torn = whole_lines(content)
    if torn:
        log.warning("%s: the last line was torn by a crash, its question is asked again", path)
        with path.open("r+b") as file:
            file.truncate(len(content) - len(torn))
