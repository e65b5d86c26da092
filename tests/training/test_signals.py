"""Signals are let in at once, or at the end of what must not be cut."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from calibadv.training.signals import Interruption, Preempted

BOTH = [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def ended_with(body: Callable[[Interruption], None]) -> tuple[type[BaseException] | None, Interruption]:
    interruption = Interruption()
    try:
        with interruption.installed():
            body(interruption)
    except BaseException as error:
        return type(error), interruption
    return None, interruption


@pytest.mark.parametrize(("number", "error"), BOTH)
def test_a_signal_ends_the_run_at_once_where_nothing_is_under_way(
    number: signal.Signals, error: type[BaseException]
) -> None:
    reached = []

    def body(_: Interruption) -> None:
        send(number)
        reached.append("after")

    assert ended_with(body)[0] is error
    assert reached == []


@pytest.mark.parametrize(("number", "error"), BOTH)
def test_a_signal_waits_for_the_end_of_what_must_not_be_cut(number: signal.Signals, error: type[BaseException]) -> None:
    reached = []

    def body(interruption: Interruption) -> None:
        with interruption.deferred():
            with interruption.deferred():
                send(number)
            reached.append("inside")
        reached.append("after")

    kind, interruption = ended_with(body)
    assert kind is error
    assert reached == ["inside"]
    assert not interruption.forced


def test_a_second_signal_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    reached = []

    def body(interruption: Interruption) -> None:
        with interruption.deferred():
            send(signal.SIGTERM)
            reached.append("first")
            send(signal.SIGINT)
            reached.append("second")

    kind, interruption = ended_with(body)
    assert kind is KeyboardInterrupt
    assert reached == ["first"]
    assert interruption.forced
    assert "SIGTERM: it ends after the update or checkpoint under way" in caplog.text


def test_an_error_of_what_was_held_is_not_hidden_by_a_waiting_signal() -> None:
    def body(interruption: Interruption) -> None:
        with interruption.deferred():
            send(signal.SIGTERM)
            raise RuntimeError("the learner died")

    assert ended_with(body)[0] is RuntimeError


def test_earlier_handlers_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number, _ in BOTH]
    with Interruption().installed():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number, _ in BOTH] == before


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Interruption().installed() as interruption, interruption.deferred():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
