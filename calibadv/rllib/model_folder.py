"""A policy written weight by weight, as `from_pretrained` and vLLM open it: no more of it in memory than one file.

transformers' own `save_pretrained` writes the same, but takes a whole state and imports DeepSpeed, which takes seconds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from calibadv.checkpoints.state_files import MAX_FILE_BYTES


def write_model_folder(
    weights: Iterator[tuple[str, Tensor]],
    model: PreTrainedModel,
    source: str,
    folder: Path,
    dtype: torch.dtype,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Writes the model's `weights` in `dtype`, its saved buffers and configs, and the tokenizer of `source`.

    Weights come under their first names: a tied one's other name is left out, as Hugging Face does it. A weight larger
    than a file may be gets a file of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = model.state_dict(keep_vars=True).items()
    buffers = ((name, tensor) for name, tensor in saved if not isinstance(tensor, nn.Parameter))
    files = _parts(chain(weights, buffers), dtype, max_file_bytes)
    first, second = next(files, {}), next(files, None)
    if second is None:
        save_file(first, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        _write_files(chain((first, second), files), folder)
    config = copy.deepcopy(model.config)
    config.dtype, config.architectures = dtype, [type(model).__name__]
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    share_weights(folder)


def _write_files(parts: Iterable[dict[str, Tensor]], folder: Path) -> None:
    """Writes a file a part, and the index that says which weight is where."""
    file_of: dict[str, str] = {}
    total = 0
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        file_of |= dict.fromkeys(part, file)
        total += sum(tensor.nbytes for tensor in part.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def share_weights(folder: Path) -> None:
    """Gives a folder's weights the rights of its configuration: safetensors keeps its files to their owner."""
    rights = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(rights)


def _parts(
    weights: Iterator[tuple[str, Tensor]], dtype: torch.dtype, max_file_bytes: int
) -> Iterator[dict[str, Tensor]]:
    """The weights as copies on the CPU, in runs of `max_file_bytes` at most."""
    part: dict[str, Tensor] = {}
    filled = 0
    for name, weight in weights:
        kept = dtype if weight.is_floating_point() else weight.dtype
        cast = weight.detach().to(weight.device, kept)  # where it lies: a CPU's one thread would take all fp32 bytes
        tensor = cast.to("cpu", copy=cast.device.type == "cpu").contiguous()
        if part and filled + tensor.nbytes > max_file_bytes:
            yield part
            part, filled = {}, 0
        part[name] = tensor
        filled += tensor.nbytes
    if part:
        yield part
