"""A configuration as TOML text that `load_config` reads back; unset values are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calibadv.config import Config


def to_toml(config: Config) -> str:
    """The whole tree, defaults included, a table a section."""
    lines: list[str] = []
    for section, values in config.model_dump().items():
        nested = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines += [f"[{section}]", *_entries({k: v for k, v in values.items() if k not in nested}), ""]
        for key, table in nested.items():
            if table:
                lines += [f"[{section}.{key}]", *_entries(table), ""]
    return "\n".join(lines)


def _entries(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {_literal(value)}" for key, value in values.items() if value is not None]


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    assert isinstance(value, str | Path), f"no TOML literal for {value!r}"
    text = json.dumps(str(value), ensure_ascii=False)  # a JSON string is a TOML basic string
    return text.replace("\x7f", "\\u007f")  # but for DEL, which JSON leaves as it is and TOML forbids
