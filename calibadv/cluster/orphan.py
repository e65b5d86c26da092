"""No process outlives the engine that it works for: vLLM's core, and its tensor-parallel ranks. Linux's way."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time

import psutil

_PR_SET_PDEATHSIG = 1
_LOOK_S = 1.0


def die_with(actor: int) -> None:
    """Ends this process with the one that started it, however that ends: it would keep its GPU's memory.

    Where that is not the process `actor` itself, but a core between them that has no such rule, the core is ended with
    the actor, and this process with the core.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if (core := os.getppid()) != actor:
        threading.Thread(target=_end_orphan, args=(core, actor), daemon=True, name="orphan").start()


def _end_orphan(core: int, actor: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        while psutil.Process(core).ppid() == actor:
            time.sleep(_LOOK_S)
        os.kill(core, signal.SIGKILL)
