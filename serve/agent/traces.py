"""A share of the answers, and what is said of them, for MLflow. A thread writes; no question ever waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import zlib
from collections.abc import Callable
from typing import Protocol

from calibadv.tracking.record import record_rollout
from calibadv.tracking.served import ServedRecord
from calibadv.types import Group, Question, Trajectory
from serve.agent.citations import Searches

logger = logging.getLogger(__name__)

WAITING = 1000  # answers that wait to be written; where there are more the store is too slow, and they are left out


class Store(Protocol):
    """Where traces go: `calibadv.tracking.served.ServedStore`."""

    def write(self, record: ServedRecord) -> None:
        """One answer."""

    def rate(self, response_id: str, *, accepted: bool, comment: str) -> None:
        """What was said of it."""


class Traces:
    """Writes `share` of all answers to the store, in words only with `text`. What the store refuses is left out."""

    def __init__(self, store: Store, share: float, *, text: bool) -> None:
        self._store, self._share, self._text = store, share, text
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(WAITING)
        self._said = False
        threading.Thread(target=self._write, name="traces", daemon=True).start()

    def takes(self, response_id: str) -> bool:
        """Whether the answer of that id is one of the share: for the same id always the same."""
        return zlib.crc32(response_id.encode()) < self._share * 2**32

    def answered(self, response_id: str, record: Callable[[], ServedRecord]) -> None:
        """An answer that is whole, if it is one of the share; `record` makes what is written of it, in the thread."""
        if self.takes(response_id):
            self._put(lambda: self._store.write(record() if self._text else record().without_words()))

    def rated(self, response_id: str, rating: str, comment: str) -> None:
        """A thumb for one of the share; that of another answer is in the file of thumbs alone."""
        if self.takes(response_id):
            said = comment if self._text else ""
            self._put(lambda: self._store.rate(response_id, accepted=rating == "up", comment=said))

    def wait(self) -> None:
        """Until all is written that was given so far."""
        self._waiting.join()

    def flush(self, timeout_s: float) -> int:
        """The same for at most `timeout_s`; how many were not written by then, which a warning says too."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, timeout_s)
            left = self._waiting.unfinished_tasks
        if left:
            logger.warning("%d traces of answers and thumbs were not written in %g s: they are lost", left, timeout_s)
        return left

    def _put(self, job: Callable[[], None]) -> None:
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            self._say(f"{WAITING} wait for it")

    def _write(self) -> None:
        while True:
            job = self._waiting.get()
            try:
                job()
            except Exception as error:
                self._say(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
            else:
                self._said = False
            finally:
                self._waiting.task_done()

    def _say(self, why: str) -> None:
        """Once, until the store takes something again."""
        if not self._said:
            self._said = True
            logger.warning("MLflow takes no trace of an answer (%s): it is left out, and so are those that follow", why)


def served_record(
    response_id: str,
    model: str,
    question: str,
    trajectory: Trajectory,
    found: Searches,
    begun_s: float,
    ended_s: float,
) -> ServedRecord:
    """What is written of an answer. `found`: what its searches found; times are Unix times."""
    documents = {document.id: document for search in found for document in search}
    group = Group(Question(response_id, question, ("",)), (trajectory,))
    return ServedRecord(
        id=response_id,
        model=model,
        question=question,
        answer=trajectory.answer,
        turns=record_rollout(group, 0, step=0, documents=documents).turns,
        read_tokens=trajectory.num_tokens - trajectory.num_actions,
        written_tokens=trajectory.num_actions,
        begun_ms=round(1000 * begun_s),
        took_ms=round(1000 * (ended_s - begun_s)),
        failed=trajectory.infra_failed,
    )
