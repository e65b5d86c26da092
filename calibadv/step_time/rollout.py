"""The time of a step's rollouts: engines read and sample, the retriever answers, and the longest rollout ends last."""

from __future__ import annotations

from calibadv.memory.items import Items, card_bytes, engine_items, kv_token_bytes, state_items
from calibadv.memory.shape import ModelShape
from calibadv.step_time.flops import Phase, head_flops, layer_flops
from calibadv.step_time.gpu import TERA, Gpu
from calibadv.step_time.layout import Engines, Layout, Learners
from calibadv.step_time.work import Assumptions, Work


def rollout_phase(shape: ModelShape, gpu: Gpu, work: Work, layout: Layout, assumed: Assumptions) -> Phase:
    """All rollouts of a step: engines or retrievers, whichever take longer, and then the tail.

    An engine works on its batch of `running` rollouts until the mean rollout is done; searches of some are hidden
    behind the tokens of others. What the longest rollout still has to sample then, and all its searches, are the tail.
    """
    engines = layout.engines
    prefill_s = prefill(shape, gpu, work, engines, assumed)
    batch = running(shape, gpu, work, layout)
    step_s, bound = decoding_step(shape, gpu, engines, assumed, batch=batch, context=work.context)
    decode_s = work.rollouts * work.actions / engines.number / batch * step_s
    search_s = work.searches / (layout.retrievers * assumed.searches_per_s)
    alone_s, _ = decoding_step(shape, gpu, engines, assumed, batch=1, context=work.context)
    rest = max(0.0, work.longest_action_tokens - work.actions)
    tail_s = rest * alone_s + (work.longest_turns - 1) * assumed.search_s
    engines_s = prefill_s + decode_s
    parts = {
        "prefill": prefill_s,
        "decoding": decode_s,
        "waiting for the retriever": max(0.0, search_s - engines_s),
        "tail": tail_s,
    }
    if search_s > engines_s:
        bounds = {"the retriever": search_s}
    else:
        bounds = {"prefill, arithmetic": prefill_s, f"decoding, {bound}": decode_s}
    bounds["the longest rollout"] = tail_s
    return Phase(parts, max(bounds, key=bounds.__getitem__))


def prefill(shape: ModelShape, gpu: Gpu, work: Work, engines: Engines, assumed: Assumptions) -> float:
    """Seconds in which every engine reads its prompts, each once for all samples, and its observations.

    All that came before is in the prefix cache. Bound by arithmetic.
    """
    observed = work.searches * work.observation_tokens
    prompts = work.questions * work.prompt_tokens
    flops = layer_flops(shape, prompts, work.prompt_tokens / 2) + layer_flops(shape, observed, work.rollout_tokens / 2)
    return flops / engines.gpus / (gpu.flops_per_s(engines.dtype) * assumed.engine_mfu)


def decoding_step(
    shape: ModelShape, gpu: Gpu, engines: Engines, assumed: Assumptions, *, batch: float, context: float
) -> tuple[float, str]:
    """Seconds in which an engine samples a token for each of `batch` rollouts, and which of two bounds holds.

    The weights and the batch's keys and values are read once ("memory"), and each token goes through layers and head
    ("arithmetic"): the longer of both, and the engine's own time. Tensor-parallel ranks divide both evenly.
    """
    flops = layer_flops(shape, batch, context) + head_flops(shape, batch)
    ranks, item = engines.tensor_parallel, engines.weight_bytes
    read = shape.parameters * item / ranks + batch * context * kv_token_bytes(shape, item, ranks)
    arithmetic_s = flops / ranks / (gpu.flops_per_s(engines.dtype) * assumed.engine_mfu)
    memory_s = read / (gpu.hbm_tb_s * TERA * assumed.bandwidth)
    bound = "memory" if memory_s >= arithmetic_s else "arithmetic"
    return max(memory_s, arithmetic_s) + assumed.engine_step_s, bound


def running(shape: ModelShape, gpu: Gpu, work: Work, layout: Layout) -> float:
    """Rollouts that an engine has under way: its share, at most `max_concurrent` and what its KV cache holds.

    Beside a colocated learner, whose state stays, and its copy of published weights, the cache is smaller. At least 1.
    """
    engines = layout.engines
    ranks, item = engines.tensor_parallel, engines.weight_bytes
    own = sum(engine_items(shape, item=item, sequences=engines.max_concurrent, tensor_parallel=ranks).values())
    room = engines.memory_share * card_bytes(gpu.memory_gb)
    if layout.colocated:
        kept = sum(resting(shape, layout.learners).values()) + layout.shared_memory * shape.parameters * item
        room = min(room, card_bytes(gpu.memory_gb) - kept)
    held = (room - own) / (work.rollout_tokens * kv_token_bytes(shape, item, ranks))
    return max(1.0, min(engines.max_concurrent, work.rollouts / engines.number, held))


def resting(shape: ModelShape, learners: Learners) -> Items:
    """What a learner holds between two updates. Adapters' own state is left out."""
    trained, frozen = (0, shape.parameters) if learners.adapters else (shape.parameters, 0)
    return state_items(trained, frozen=frozen, zero=learners.zero, learners=learners.number)
