"""Runs checks one after the other, each within its time; whatever a check does, a finding comes of it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from calibadv.doctor.finding import Finding, State, failed
from calibadv.doctor.subject import Subject

_LONGEST = 300  # characters of what a library said


@dataclass(frozen=True, slots=True)
class Check:
    """A look at one thing; it may find several. `limit_s` is for all of it."""

    name: str
    look: Callable[[Subject], Iterable[Finding]]
    limit_s: float = 30.0


def examine(
    checks: Sequence[Check], subject: Subject, begin: Callable[[Check], None] = lambda _: None
) -> Iterator[Finding]:
    """The findings of all checks in their order, each as soon as it is made; `begin` is told which check comes next.

    A check that raises, or that has not ended after its time, is a failed finding with words. One that hangs is left
    behind in its thread: the others go on. What an earlier check said already is not said again.
    """
    said: set[str] = set()
    for check in checks:
        begin(check)
        for finding in _within_its_time(check, subject):
            if finding.state is State.FAIL and finding.said in said:
                yield failed(finding.name, "not looked at, for a reason above", finding.remedy)
            else:
                said.add(finding.said)
                yield finding


def _within_its_time(check: Check, subject: Subject) -> Iterator[Finding]:
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for finding in check.look(subject):
                found.put(finding)
        except BaseException as error:  # a panic of a tokenizer's Rust code is no Exception
            found.put(broken(check.name, error))
        found.put(None)

    threading.Thread(target=work, name=f"check {check.name}", daemon=True).start()
    deadline_s = time.monotonic() + check.limit_s
    while True:
        try:
            finding = found.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            yield failed(
                check.name,
                f"no answer within {check.limit_s:g} s",
                "see what it waits for: a disk, a server or a download that hangs, or a machine that is too busy",
            )
            return
        if finding is None:
            return
        yield finding


def broken(name: str, error: BaseException) -> Finding:
    """A check that could not be made, in the error's own words; those of our own errors say what to do."""
    words = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ValueError) and words:
        return failed(name, words, "mend what it names, then run the doctor again")
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return failed(name, said, "mend what it names; if nothing there is wrong, report it with this line")
