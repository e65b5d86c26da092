"""Train search agents with calibrated advantages: `calibadv.train`, `evaluate`, `load_config`, `Run` (docs/python.md).

They are looked up when they are first used: a process that imports one module of this package pays for that alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Config", "Run", "evaluate", "load_config", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'calibadv' has no attribute {name!r}")
    return getattr(import_module("workflows.api"), name)
