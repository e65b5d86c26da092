"""Which values of a configuration are, or hold, a secret: what is written to run folders and MLflow must hold none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"(^|[-_])(api|access|secret)?[-_]?(key|token|secret|password|passwd|pwd|sig|signature)$", re.I)


def secret_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose text is an address with a password or a token in it, or no name where one is expected.

    A key that ends in `_env` is the name of an environment variable; what cannot be one may be the token itself.
    """
    found = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found += secret_keys(value, f"{key}.")
        elif isinstance(value, list | tuple):
            found += secret_keys({str(number): part for number, part in enumerate(value)}, f"{key}.")
        elif isinstance(value, str | Path) and (_in_address(str(value)) or _misplaced(name, str(value))):
            found.append(key)
    return found


def _in_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        secret = bool(parts.password) or any(_SECRET.search(name) for name, _ in parse_qsl(parts.query))
    except ValueError:  # no address: text with a bracket, say
        return False
    return bool(parts.scheme and parts.netloc) and secret


def _misplaced(name: str, value: str) -> bool:
    return name.endswith("_env") and bool(value) and _NAME.fullmatch(value) is None
