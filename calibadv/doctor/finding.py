"""What a check has to say: one line of the doctor's report, and what to do where it did not pass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """PASS: as the run needs it. WARN: the run may go on, and this may spoil it. FAIL: it will not run, or wrongly."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. What did not pass has a remedy: what its reader should do."""

    name: str
    state: State
    said: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.remedy or self.state is State.PASS, f"{self.name}: {self.said}, and no word of what to do"


def passed(name: str, said: str) -> Finding:
    """What is as it should be."""
    return Finding(name, State.PASS, said)


def warned(name: str, said: str, remedy: str) -> Finding:
    """What may spoil a run."""
    return Finding(name, State.WARN, said, remedy)


def failed(name: str, said: str, remedy: str) -> Finding:
    """What ends a run, or makes it wrong."""
    return Finding(name, State.FAIL, said, remedy)


def exit_code(findings: list[Finding]) -> int:
    """1 if anything failed, else 0: a warning stops nobody."""
    return int(any(finding.state is State.FAIL for finding in findings))
