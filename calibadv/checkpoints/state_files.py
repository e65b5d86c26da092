"""A state's folder: `state.json` for its structure and numbers, safetensors files for its tensors; no pickle.

None, booleans, whole numbers, finite floats, text, lists and mappings with text keys are JSON as they stand. What JSON
has no word for is an object with one key: {"$tensor": name}, {"$tuple": […]}, {"$items": [[key, value], …]} (a mapping
whose keys are not all text, or begin with $), {"$number": "nan"}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

Tree = Any
"""Nested dicts, lists and tuples over tensors, numbers, text, booleans and None."""


STATE = "state.json"
MAX_FILE_BYTES = 2**30  # one file's tensors are in memory twice while it is written
_RESERVED = "__metadata__"  # by the safetensors format


def write_state(folder: Path, tree: Tree, max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Writes the state into an existing folder. ValueError for a value that `encode` does not know."""
    plain, tensors = encode(tree)
    files = {
        f"tensors-{index:05}.safetensors": names
        for index, names in enumerate(batched({n: t.nbytes for n, t in tensors.items()}, max_file_bytes))
    }
    for file, names in files.items():
        # Copied: safetensors refuses tensors that are not contiguous, or that share their memory.
        part = {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in names}
        (folder / file).write_bytes(safetensors.torch.save(part))
    (folder / STATE).write_text(json.dumps({"format": 1, "tensors": files, "tree": plain}) + "\n", encoding="utf-8")


def read_state(read: Callable[[str], bytes]) -> Tree:
    """The state again, on the CPU. `read` returns a file of the folder by its name.

    ValueError where the files do not fit together; nothing in them can run code.
    """
    try:
        values = json.loads(read(STATE))
        tensors: dict[str, Tensor] = {}
        for file in values["tensors"]:
            tensors |= safetensors.torch.load(read(file))
        return decode(values["tree"], tensors)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{STATE} or a file that it names is no state: {error!r}") from error


def batched(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """The names in their order, cut into runs whose sizes add up to `limit` at most; a larger one stands alone."""
    batches: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not batches or filled + size > limit:
            batches.append([])
            filled = 0
        batches[-1].append(name)
        filled += size
    return batches


def encode(tree: Tree) -> tuple[Any, dict[str, Tensor]]:
    """(JSON values, tensors by name); the names are the tensors' paths in the tree. `decode` is the inverse.

    Mappings come back as dicts. ValueError for a value of any other type, naming its path.
    """
    tensors: dict[str, Tensor] = {}
    return _encoded(tree, "", tensors), tensors


def decode(plain: Any, tensors: Mapping[str, Tensor]) -> Tree:
    """The tree that `encode` took apart. ValueError where it names a tensor that is not there, or was never encoded."""
    if isinstance(plain, list):
        return [decode(value, tensors) for value in plain]
    if not isinstance(plain, dict):
        return plain
    match plain:
        case {"$tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"$tuple": list(values)}:
            return tuple(decode(value, tensors) for value in values)
        case {"$items": list(items)} if all(isinstance(item, list) and len(item) == 2 for item in items):
            return {decode(key, tensors): decode(value, tensors) for key, value in items}
        case {"$number": str(text)} if text in ("nan", "inf", "-inf"):
            return float(text)
    marked = next((key for key in plain if key.startswith("$")), None)
    if marked is not None:
        raise ValueError(f"{{{marked!r}: {str(plain[marked])[:60]}}} is no state, or names a tensor that is not there")
    return {key: decode(value, tensors) for key, value in plain.items()}


def _encoded(value: Tree, path: str, tensors: dict[str, Tensor]) -> Any:
    def inner(name: object, part: Tree) -> Any:
        return _encoded(part, f"{path}.{name}" if path else str(name), tensors)

    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$number": str(float(value))}
    if isinstance(value, Tensor):
        name = _free(path, tensors)
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, list):
        return [inner(index, part) for index, part in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [inner(index, part) for index, part in enumerate(value)]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: inner(key, part) for key, part in value.items()}
        return {"$items": [[inner(f"{key}#key", key), inner(key, part)] for key, part in value.items()]}
    raise ValueError(
        f"{path or 'the state'} is a {type(value).__name__}: expected tensors, numbers, text, booleans, None, "
        "and lists, tuples and mappings of them"
    )


def _free(path: str, taken: Mapping[str, Tensor]) -> str:
    """The path, or with a number behind where two paths read alike ({"a.b": …} and {"a": {"b": …}})."""
    name, number = path or "tensor", 1
    while name in taken or name == _RESERVED:
        number += 1
        name = f"{path}#{number}"
    return name
