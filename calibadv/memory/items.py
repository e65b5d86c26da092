"""How many bytes each kind of process keeps on its GPU, item by item: arithmetic of shapes, nothing is asked.

Letters of the formulas: P parameters, H hidden, I intermediate, L layers, V vocabulary, K width of a layer's keys.
docs/memory.md says where each number comes from and which are estimates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from calibadv.losses import CHUNK_TOKENS
from calibadv.memory.shape import ModelShape

GIB = 2**30
GB = 10**9
USABLE = 0.97  # of a card's bytes: the rest is the driver's, or lost between the allocator's blocks
CONTEXT = 1 * GIB  # CUDA context, cuBLAS and NCCL buffers of a process; an estimate
CUDA_GRAPHS = 1 * GIB  # of an engine; an estimate
FAISS_SCRATCH = 3 * GIB // 2  # what FAISS sets aside on a GPU of more than 8 GiB
BATCHED_TOKENS = 8_192  # that an engine runs at once on a GPU; unasked, vLLM would take 2,048 in a process like ours
# Of learners that share their state, told to DeepSpeed by calibadv/rllib/zero.py:
ZERO_BUCKET = 2**26  # elements that are reduced or gathered at a time
ZERO_LIVE = 2**28  # elements of gathered weights that stage 3 keeps, ahead or for their next use
BACKWARD = 0.5  # gradients of a layer's activations while it runs backward, as a share of them; an estimate


@dataclass(frozen=True, slots=True)
class Item:
    """Bytes on one GPU. `transient` ones are there during an update alone; a colocated engine may have them between."""

    name: str
    size_bytes: float
    transient: bool = False


def sum_bytes(items: Iterable[Item], *, resting: bool = False) -> float:
    """Bytes of the items together; `resting`: without those that are transient."""
    return sum(item.size_bytes for item in items if not (resting and item.transient))


def card_bytes(card_gb: float) -> float:
    """Bytes of a card of `card_gb` GB that can be counted on, 10^9 bytes a GB."""
    return USABLE * card_gb * GB


def kv_token_bytes(shape: ModelShape, item: int, tensor_parallel: int = 1) -> int:
    """Bytes of a token's keys and values on each GPU of an engine; a key-value head is never cut, but repeated."""
    heads = -(-shape.kv_heads // tensor_parallel)
    return 2 * shape.layers * heads * shape.head_dim * item


def batched_tokens(sequences: int) -> int:
    """Tokens that an engine with so many `sequences` at a time runs at once on a GPU, unless it is told otherwise."""
    return max(BATCHED_TOKENS, sequences)


def engine_items(
    shape: ModelShape,
    *,
    item: int,
    sequences: int,
    tensor_parallel: int = 1,
    tokens: int | None = None,
    graphs: bool = True,
) -> tuple[Item, ...]:
    """What an engine holds on each of its GPUs before any KV cache. `item` bytes a weight.

    `sequences` and `tokens` (None: `batched_tokens`) in a step; `graphs`: decoding is captured in CUDA graphs.
    """
    tokens = tokens or batched_tokens(sequences)
    step = tokens * (4 * shape.intermediate / tensor_parallel + 8 * shape.hidden) * item / 2
    return (
        Item(f"weights, {item} bytes a parameter", shape.parameters * item / tensor_parallel),
        Item("activations and logits of a step", step + 12 * sequences * shape.vocabulary),
        Item("CUDA context and graphs" if graphs else "CUDA context", CONTEXT + CUDA_GRAPHS * graphs),
    )


def layer_activations(shape: ModelShape, *, autocast: bool, adapters: bool = False) -> int:
    """Bytes of a token that one layer keeps for the backward pass: 30 H + 4 K + 8 I autocast, 32 H + 8 K + 16 I fp32.

    Counted in the Qwen2 and Llama of transformers with fused attention: the residual stream and its norms are fp32
    under autocast too, and every linear layer that casts its input keeps a copy. With adapters beside every linear
    layer 24 H: frozen norms keep no input. The adapters' own outputs, a few bytes times their rank, are left out.
    """
    keys = shape.kv_heads * shape.head_dim
    if autocast:
        return (24 if adapters else 30) * shape.hidden + 4 * keys + 8 * shape.intermediate
    return (24 if adapters else 32) * shape.hidden + 8 * keys + 16 * shape.intermediate


def activation_bytes(
    shape: ModelShape, tokens: int, *, autocast: bool, checkpointing: bool, adapters: bool = False
) -> float:
    """Peak bytes of a micro-batch's activations; with checkpointing each layer's fp32 input and one whole layer."""
    layer = layer_activations(shape, autocast=autocast, adapters=adapters)
    kept = 4 * shape.hidden * shape.layers + layer if checkpointing else layer * shape.layers
    return tokens * (kept + BACKWARD * layer + 16 * shape.hidden)  # 16 H: the last hidden states, gathered, gradients


def head_bytes(shape: ModelShape, chunk_tokens: int, *, autocast: bool, adapters: bool = False) -> int:
    """Bytes that a chunk's log-probs and their gradient take beside the head's weight.

    fp32 logits with two temporaries (one without a cap), the head cast to bf16, its fp32 gradient where it trains; of a
    head in bf16 that sum, and in place of the cast the gradient in bf16.
    """
    return 12 * chunk_tokens * shape.vocabulary + (2 * autocast + 4 * (not adapters)) * shape.embedding


def learner_items(
    shape: ModelShape,
    *,
    tokens: int,
    autocast: bool,
    checkpointing: bool,
    reference: bool = False,
    critic: Literal["model", "head"] | None = None,
    zero: Literal[0, 1, 2, 3] = 0,
    learners: int = 1,
    adapters: int = 0,
    half: bool = False,
) -> tuple[Item, ...]:
    """What a learner holds at its peak, with micro-batches of `tokens` padded tokens.

    Weights, gradients and AdamW's moments are fp32, 16 bytes a parameter. A critic that is a model is a second trunk
    with a state and activations of its own. `learners` that share by ZeRO hold their part of the moments and of a copy
    of the weights that AdamW steps; from stage 2 on of the gradients too, and in stage 3 of the weights, which then are
    whole for a few layers at a time. With `half` the weights are bf16 beside that copy. With `adapters` only so many
    parameters train, and the model is frozen in fp32.
    """
    sizes = model_parameters(shape, critic)
    trained, frozen = trained_and_frozen(shape, critic=critic, adapters=adapters)
    state = state_items(trained, frozen=frozen, zero=zero, learners=learners, half=half)
    layer = (shape.parameters - (1 + (not shape.tied)) * shape.embedding) / shape.layers
    # Autocast keeps copies of weights that train; of frozen ones the backward pass does, a checkpointed layer's only.
    one_layer = zero == 3 or (adapters > 0 and checkpointing)
    layers = layer if one_layer else sum(sizes) - (len(sizes) + (not shape.tied)) * shape.embedding
    casts = 2 * layers if autocast and not half else 0
    # Shared: DeepSpeed's row of the gradients, in stage 3 of a part at once. AdamW itself steps in place (fused), a
    # CPU's that is alone a parameter at a time.
    stepped = (adapters or max(sizes)) / learners if zero else 0
    step = 4 * (min(stepped, 2 * ZERO_BUCKET) if zero == 3 else stepped)
    activations = len(sizes) * activation_bytes(
        shape, tokens, autocast=autocast, checkpointing=checkpointing, adapters=adapters > 0
    )
    head = head_bytes(shape, CHUNK_TOKENS, autocast=autocast, adapters=adapters > 0)
    gathered = (2 if half else 4) * (ZERO_LIVE + max(layer, shape.embedding)) if zero == 3 else 0
    items = (
        *state,
        Item(f"weights gathered from others, {'bf16' if half else 'fp32'}", gathered, transient=True),
        Item("DeepSpeed's bucket", 4 * ZERO_BUCKET if zero else 0),
        Item("reference model, fp32", 4 * shape.parameters if reference and not adapters else 0),
        Item("bf16 copies of weights (autocast)", casts, transient=True),
        Item(f"activations of {tokens:,} tokens", activations, transient=True),
        Item("logits of a chunk, head's gradient", head, transient=True),
        # Taken when activations are gone
        Item("AdamW's step, beyond all that", max(0.0, step - casts - activations - head), transient=True),
        Item("CUDA context, NCCL", CONTEXT),
    )
    return tuple(item for item in items if item.size_bytes > 0)


def model_parameters(shape: ModelShape, critic: Literal["model", "head"] | None) -> list[int]:
    """Parameters of the policy, and of a critic's trunk where it has one of its own."""
    return [shape.parameters, *([shape.trunk] if critic == "model" else [])]


def trained_and_frozen(
    shape: ModelShape, *, critic: Literal["model", "head"] | None = None, adapters: int = 0
) -> tuple[int, int]:
    """Parameters of policy and critic that train, and those beside adapters that do not; a reference is not counted."""
    held = sum(model_parameters(shape, critic))
    return (adapters, held) if adapters else (held, 0)


def state_items(
    trained: int, *, frozen: int = 0, zero: Literal[0, 1, 2, 3] = 0, learners: int = 1, half: bool = False
) -> tuple[Item, ...]:
    """What a learner holds of `trained` and `frozen` parameters between two updates, and their gradients."""
    moments, gradients, weights = (trained / (learners if zero >= stage else 1) for stage in (1, 2, 3))
    items = (
        Item("frozen weights, fp32", 4 * frozen / (learners if zero == 3 else 1)),
        Item("weights, bf16", 2 * weights)
        if half
        else Item("adapters, fp32" if frozen else "weights, fp32", 4 * weights),
        Item("weights as AdamW steps them, fp32", 4 * moments if zero else 0),
        Item("gradients, fp32", 4 * gradients),
        Item("AdamW's two moments, fp32", 8 * moments),
    )
    return tuple(item for item in items if item.size_bytes > 0)


def index_vector_bytes(kind: str, width: int) -> float:
    """Bytes of one passage's vector in a FAISS index on a GPU; 0 for HNSW, which FAISS keeps on the CPU."""
    return {"flat": 4.0 * width, "fp16": 2.0 * width, "hnsw": 0.0, "ivfpq": width / 4 + 8}[kind]


def gib(size_bytes: float) -> str:
    """Bytes as GiB, in words."""
    return f"{size_bytes / GIB:,.1f} GiB"
