"""The shape of a model and its exact number of parameters, without its weights: what a memory estimate needs.

A name is looked up in a local folder, in the hub's cache on this machine, in the few shapes below, and on the hub, in
that order: what the recipes name is known without a network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from calibadv.http_client import client_options
from calibadv.model_source import local_folder, offline

HUB_TIMEOUT_S = 10.0
Kind = Literal["causal", "encoder"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a transformer: H hidden, I intermediate, V vocabulary. `parameters` counts tied ones once.

    `linear`: linear layers of the blocks by their own names, each with its in- and outputs, summed over the blocks.
    """

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # input and output embeddings are one matrix
    linear: tuple[tuple[str, int], ...] = ()

    @property
    def embedding(self) -> int:
        """Parameters of one embedding matrix, V x H."""
        return self.vocabulary * self.hidden

    @property
    def trunk(self) -> int:
        """Parameters without an output head of its own."""
        return self.parameters if self.tied else self.parameters - self.embedding


def model_shape(name: str, kind: Kind = "causal") -> ModelShape:
    """The shape of a causal language model, or of an encoder, by folder or hub name.

    Raises ValueError, with every place that was looked at, for a model whose shape is nowhere to be found, and for one
    that the installed transformers cannot build. The model's own code is never run.
    """
    return _counted(json.dumps(_fields(name), sort_keys=True), name, kind)


@cache
def _counted(fields: str, name: str, kind: Kind) -> ModelShape:
    import torch
    from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM

    given = json.loads(fields)
    try:
        whole = CONFIG_MAPPING[given["model_type"]].from_dict(given)
        with torch.device("meta"):  # every tensor's shape and no memory: the library counts, not we
            model = (AutoModelForCausalLM if kind == "causal" else AutoModel).from_config(whole)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the config.json of {name} describes no model that can be built here ({type(error).__name__}: {error}); "
            "expected the model_type and sizes of one that transformers knows"
        ) from None
    config: Any = whole.get_text_config()
    heads, hidden = config.num_attention_heads, config.hidden_size
    return ModelShape(
        parameters=int(model.num_parameters()),
        hidden=hidden,
        intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,  # GPT-2's default
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or hidden // heads,
        vocabulary=config.vocab_size,
        tied=bool(getattr(config, "tie_word_embeddings", False)),
        linear=_linear(model.base_model),
    )


def adapter_parameters(shape: ModelShape, rank: int, targets: Literal["all-linear"] | tuple[str, ...]) -> int:
    """Parameters of adapters of `rank` beside the target layers, rank · (in + out) each; 0 for rank 0.

    ValueError for a target that the model does not have.
    """
    if rank == 0:
        return 0
    sizes = dict(shape.linear)
    wanted = list(sizes) if targets == "all-linear" else targets
    if not sizes or (unknown := [name for name in wanted if name not in sizes]):
        missing = ", ".join(unknown) if sizes else "all-linear"
        raise ValueError(
            f"learner.lora_targets: the model's blocks have no linear layer for {missing}: expected names among "
            f"{', '.join(sizes) or 'none'}"
        )
    return rank * sum(sizes[name] for name in dict.fromkeys(wanted))


def _linear(trunk: Any) -> tuple[tuple[str, int], ...]:
    from torch.nn import Linear

    sizes: dict[str, int] = {}
    for name, layer in trunk.named_modules():
        if isinstance(layer, Linear):
            own = name.rpartition(".")[2]
            sizes[own] = sizes.get(own, 0) + layer.in_features + layer.out_features
    return tuple(sizes.items())


def _fields(name: str) -> dict[str, Any]:
    """What the model's config.json says."""
    folder = local_folder(name, "model")
    if folder is not None and (folder / "config.json").is_file():
        return _read(folder / "config.json")
    return KNOWN.get(name) or _from_hub(name)


def _from_hub(name: str) -> dict[str, Any]:
    where = f"{name} is not a folder on this machine, not in its hub cache and not among the known shapes"
    if switch := offline():
        raise ValueError(f"{where}, and {switch} forbids to ask the hub")
    import httpx
    from huggingface_hub import get_token, hf_hub_url

    token = get_token()  # gated models, such as Llama, are given to who may have them
    headers, url = {"authorization": f"Bearer {token}"} if token else {}, hf_hub_url(name, "config.json")
    try:
        # One request of our own: the library's download repeats a failed one for half a minute.
        options = client_options(url, token=bool(token))
        answer = httpx.get(url, headers=headers, timeout=HUB_TIMEOUT_S, follow_redirects=True, **options)
        return dict(answer.raise_for_status().json())
    except (httpx.HTTPError, OSError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{where}, and the hub could not be asked: {reason}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file} cannot be read as a model's config.json: {error}") from None


def _decoder(model_type: str, sizes: tuple[int, int, int, int, int, int], *, tied: bool) -> dict[str, Any]:
    hidden, intermediate, layers, heads, kv_heads, vocabulary = sizes
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


_QWEN = {
    "0.5B": _decoder("qwen2", (896, 4864, 24, 14, 2, 151_936), tied=True),
    "1.5B": _decoder("qwen2", (1536, 8960, 28, 12, 2, 151_936), tied=True),
    "3B": _decoder("qwen2", (2048, 11_008, 36, 16, 2, 151_936), tied=True),
    "7B": _decoder("qwen2", (3584, 18_944, 28, 28, 4, 152_064), tied=False),
}
_LLAMA = {
    "1B": _decoder("llama", (2048, 8192, 16, 32, 8, 128_256), tied=True),
    "3B": _decoder("llama", (3072, 8192, 28, 24, 8, 128_256), tied=True),
}
_SMOLLM = _decoder("llama", (576, 1536, 30, 9, 3, 49_152), tied=True)
_BERT = {"model_type": "bert", "num_attention_heads": 12, "vocab_size": 30_522, "num_hidden_layers": 12}
# As the models' config.json say them. Sizes: hidden, intermediate, layers, heads, key-value heads, vocabulary.
KNOWN: dict[str, dict[str, Any]] = {
    **{f"Qwen/Qwen2.5-{size}{end}": shape for size, shape in _QWEN.items() for end in ("", "-Instruct")},
    **{f"meta-llama/Llama-3.2-{size}{end}": shape for size, shape in _LLAMA.items() for end in ("", "-Instruct")},
    **{f"HuggingFaceTB/SmolLM2-135M{end}": _SMOLLM for end in ("", "-Instruct")},
    "intfloat/e5-base-v2": _BERT | {"hidden_size": 768, "intermediate_size": 3072},
    "cross-encoder/ms-marco-MiniLM-L12-v2": _BERT | {"hidden_size": 384, "intermediate_size": 1536},
}
