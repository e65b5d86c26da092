"""Thumbs: what people say of an answer, a line each in a file, with the question and the answer that they speak of."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibadv.json_lines import json_line
from calibadv.tracking.journal import append_lines

REMEMBERED = 1000  # answers that can still be rated


class Feedback:
    """Remembers the newest answers, and writes down what is said of them. `clock` gives Unix time in seconds."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, response_id: str, answer: dict[str, Any]) -> None:
        """An answer that may be rated from now on; the oldest is forgotten."""
        self._answers[response_id] = answer
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def rate(self, response_id: str, rating: str, comment: str) -> bool:
        """Adds a line to the file; False where no such answer is remembered."""
        answer = self._answers.get(response_id)
        if answer is None:
            return False
        line = {"time": self._clock(), "id": response_id, "rating": rating, "comment": comment, **answer}
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_lines(self._path, json_line(line).encode())
        return True
