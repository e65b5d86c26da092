"""The process that an engine lives in: what it is known by, its heartbeat, and signals to it from other nodes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_SIGNAL_S = 60.0  # that a task on an engine's node may take
_MOST_BETWEEN_S = 2.0  # heartbeats carry what is shown to people
_BORN_TOGETHER_S = 5.0  # processes with one pid and birth times this close are the same one: clocks are adjusted


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """One process of an engine's actor. A restarted actor keeps its id and has another process."""

    name: str  # in rows and reports
    actor: str  # Ray's id of the actor
    node: str  # Ray's id of the node
    pid: int
    born_s: float  # Unix time
    timeout_s: float  # silent for so long, it is taken to hang


def this_process(timeout_s: float) -> EngineProcess:
    """The process that this is called in, as an engine."""
    context = ray.get_runtime_context()
    pid = os.getpid()
    born_s = psutil.Process(pid).create_time()
    return EngineProcess(engine_name(), context.get_actor_id() or "", context.get_node_id(), pid, born_s, timeout_s)


def engine_name() -> str:
    """The engine's name in rows and reports: its actor's id, equal before and after a restart, and its process."""
    context = ray.get_runtime_context()
    return f"{(context.get_actor_id() or 'driver')[:8]}-{os.getpid()}"


def signal_here(pid: int, born_s: float, number: int) -> bool:
    """Sends the signal (0: none) to a process of this machine; False if it has ended, whoever has its pid by now."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - born_s) > _BORN_TOGETHER_S:
            return False
        os.kill(pid, number)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


async def signal_engine(process: EngineProcess, number: int) -> bool:
    """Like `signal_here`, on the engine's node, by a task that asks for no CPU. Raises if that node cannot run one."""
    there = NodeAffinitySchedulingStrategy(process.node, soft=False)
    task: Any = ray.remote(signal_here).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    return bool(await asyncio.wait_for(task.remote(process.pid, process.born_s, number), _SIGNAL_S))


class Heartbeat:
    """Calls `send` every few seconds as long as this process moves and, once there is one, its event loop turns."""

    def __init__(self, send: Callable[[], Any], timeout_s: float) -> None:
        self._send = send
        self._every_s = min(_MOST_BETWEEN_S, timeout_s / 4)
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on `send` is called in `loop`: one that is blocked is silent."""
        self._loop = loop

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                if self._loop is None:
                    self._send()
                else:
                    self._loop.call_soon_threadsafe(self._send)
            except Exception:  # Ray or the loop is gone, and with it whoever listened
                return
            pause.wait(self._every_s)
