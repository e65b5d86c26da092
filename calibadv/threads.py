"""Blocking calls in threads that nobody waits for: one that hangs keeps its own thread, and no other call.

A call never waits for a thread: an idle one takes it, or a new one. asyncio's own pool has a fixed number of them, so
that its queue would count against a call's time, and calls that hang would stop all others.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Work = tuple[Callable[[], Any], Future[Any]]

_idle: deque[SimpleQueue[Work]] = deque()
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive it


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns, called in a thread; cancelled, it runs on there, and nobody hears of it.

    What would end more than the call, such as SystemExit, and what no future can hold come as a RuntimeError.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # from here on it always takes a result
    try:
        waiting = _idle.pop()
    except IndexError:
        waiting = SimpleQueue()
        Thread(target=_work, args=(waiting,), name="in-thread", daemon=True).start()
    waiting.put((partial(copy_context().run, function, *arguments), answer))
    return await asyncio.wrap_future(answer)


def _work(waiting: SimpleQueue[Work]) -> None:
    while True:
        deliver = _done(*waiting.get())
        _idle.append(waiting)  # before anybody hears of it, who may have the next call
        deliver()
        del deliver  # and what it holds


def _done(call: Callable[[], Any], answer: Future[Any]) -> Callable[[], None]:
    try:
        return partial(answer.set_result, call())
    except (StopIteration, CancelledError) as error:  # asyncio's futures refuse the one, and take the other for theirs
        return partial(answer.set_exception, contained(error))
    except Exception as error:
        return partial(answer.set_exception, error)
    except BaseException as error:
        return partial(answer.set_exception, contained(error))


def contained(error: BaseException) -> RuntimeError:
    """An error that says what was raised, and means nothing to an event loop."""
    told = RuntimeError(f"it raised {error!r}")
    told.__cause__ = error
    return told
