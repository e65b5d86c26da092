"""Which values of a configuration are, or hold, a secret: what is written to run folders and MLflow must hold none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from calibadv.search.json_api import names_secret

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# --api-key VALUE, --api-key=VALUE, API_KEY=VALUE, "Authorization: Bearer VALUE"
_GIVEN = re.compile(
    r"(?<![\w$?&/.-])(?:--?([A-Za-z][\w-]*)[=\s]|([A-Za-z][\w-]*)[=:])(?=\s*['\"]?((?:(?:Bearer|Basic) )?[^\s'\"]+))"
)
_HARMLESS = re.compile(r"-.*|(\w+ )?(\$\{?|%)\w+[%}]?|none|on|off|true|false|basic|bearer|oauth2?", re.I)
# A language or a number; Azure's functions take a key by that name.
_CODE = re.compile(r"[A-Za-z]{2,8}([-_]([A-Za-z]{2,8}|\d{3}))*|\d{1,6}")


def secret_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose text is an address or a command with a password or a token in it, or no name for one.

    A key that ends in `env` is the name of an environment variable, or a list of them; what cannot be one may be the
    token itself.
    """
    found = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found += secret_keys(value, f"{key}.")
        elif isinstance(value, list | tuple):
            found += secret_keys({str(number): part for number, part in enumerate(value)}, f"{key}.")
            if name == "command" and _in_command(" ".join(map(str, value))):
                found.append(key)
            if name == "env" and any(_misplaced("_env", str(part)) for part in value):
                found.append(key)
        elif isinstance(value, str | Path) and (_in_address(str(value)) or _misplaced(name, str(value))):
            found.append(key)
    return found


def _in_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        given = parse_qsl(parts.query)
        secret = bool(parts.password) or any(_is_secret(name, value) for name, value in given)
        secret = secret or any(name.lower() == "code" and not _CODE.fullmatch(value) for name, value in given)
        # A database's user has a name, and some stores' addresses begin with a container's.
        secret = secret or (parts.username is not None and parts.scheme in ("http", "https"))
    except ValueError:  # no address: text with a bracket, say
        return False
    return bool(parts.scheme and parts.netloc) and secret


def _is_secret(name: str, value: str) -> bool:
    return names_secret(name) and not _HARMLESS.fullmatch(value)


def _in_command(text: str) -> bool:
    return any(_is_secret(flag or name, value) or _in_address(value) for flag, name, value in _GIVEN.findall(text))


def _misplaced(name: str, value: str) -> bool:
    return name.endswith("_env") and bool(value) and _NAME.fullmatch(value) is None
