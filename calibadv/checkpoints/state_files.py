"""A state's folder: `state.json` for its structure and numbers, safetensors files for its tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from calibadv.checkpoints.tree import Tree, decode, encode

STATE = "state.json"
MAX_FILE_BYTES = 2**30  # one file's tensors are in memory twice while it is written


def write_state(folder: Path, tree: Tree, max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Writes the state into an existing folder. ValueError for a value that `tree.encode` does not know."""
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
