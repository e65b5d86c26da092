"""Names of metrics, parameters and tags as MLflow takes them: one that it refuses would cost all that come with it."""

from __future__ import annotations

import posixpath
import re

_MAX = 250  # characters, MLflow's limit
_REFUSED = re.compile(r"[^\w/.\- :]")


def key(name: str) -> str:
    """The name with "-" for each character that MLflow refuses, and without what it takes for a way to another."""
    return posixpath.normpath(_REFUSED.sub("-", name)[:_MAX]).lstrip("./")
