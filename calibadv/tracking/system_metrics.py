"""The driver's machine while a run lasts: CPU, memory, disk, network and GPUs, as MLflow's page groups them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

PREFIX = "system/"
EVERY_S = 15.0


class SystemMetrics:
    """Samples in a thread of its own from the moment that `ready` is set, until `close`.

    By MLflow's own monitors, whose names its page knows; delivered by `put`, so that a dead server loses none.
    """

    def __init__(
        self, put: Callable[[Mapping[str, float]], None], ready: threading.Event, *, every_s: float = EVERY_S
    ) -> None:
        self._put, self._ready, self._every_s = put, ready, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No sample comes after this."""
        self._over.set()
        self._thread.join(timeout=5.0)

    def _sample(self) -> None:
        while not self._ready.wait(0.2):  # MLflow is imported by then; two threads should not do so at once
            if self._over.is_set():
                return
        try:
            monitors = _monitors()
            while not self._over.wait(self._every_s):
                self._put({f"{PREFIX}{name}": value for monitor in monitors for name, value in _read(monitor).items()})
        except Exception as error:  # a machine that cannot be asked: the run does not need it
            log.info("the machine's load is not logged: %s", error)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except Exception as error:  # no pynvml, or no NVIDIA GPU
        log.debug("no GPU is watched: %s", error)
    return monitors


def _read(monitor: Any) -> dict[str, float]:
    monitor.collect_metrics()
    values = {str(name): float(value) for name, value in monitor.aggregate_metrics().items()}
    monitor.clear_metrics()
    return values
