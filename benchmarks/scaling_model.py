"""The modelled wall time of one training step on GPUs, from shapes and stated assumptions (docs/scaling.md).

Nothing of it was measured. P parameters, P_L those of the layers, H hidden, L layers, V vocabulary, n learners. A
multiplication and an addition count as two operations. Engines sample in bf16; learners train fp32 weights with bf16
autocast and gradient checkpointing, a GPU each. Evaluations and checkpoints are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal

import numpy as np

from calibadv.dealing import busiest, deal_rollouts
from calibadv.memory.items import card_bytes, engine_items, kv_token_bytes, state_items, sum_bytes
from calibadv.memory.parts import NODE_GPUS
from calibadv.memory.shape import ModelShape

TERA, GIGA = 1e12, 1e9
WEIGHT = 2  # bytes of an engine's
CONCURRENT, SHARE = 256, 0.85  # an engine's rollouts at most, and what it takes of its card
TOKEN_BUDGET = 16_384  # of a learner's micro-batch
ADAMW_BYTES = 28  # a parameter: weights, gradient and two moments are read, all but the gradient written, fp32


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of one GPU. Links are counted in one direction, and a network link is its share of the node's."""

    name: str
    bf16_tflops: float  # dense
    hbm_tb_s: float
    memory_gb: float
    nvlink_gb_s: float
    network_gb_s: float
    pcie_gb_s: float

    def bus_bytes_per_s(self, gpus: int) -> float:
        """Peak bus bandwidth of a collective over `gpus`: NVLink's, or beyond a node that of all its network links.

        NCCL's rings enter and leave a node by every link at once, so that what is sent between GPUs shares all of them
        (nccl-tests, doc/PERFORMANCE.md, which defines the bus bandwidth too).
        """
        network = NODE_GPUS * self.network_gb_s
        return GIGA * (self.nvlink_gb_s if gpus <= NODE_GPUS else min(self.nvlink_gb_s, network))


# NVIDIA's data sheets of A100 80GB SXM and H100 SXM, with figures "with sparsity" halved. H20 has no public sheet: its
# figures are those that the trade press printed in 2023 and sellers repeat. A node is taken to have one network link a
# GPU: 400 Gb/s InfiniBand, with A100 200 Gb/s. PCIe is generation 5, with A100 generation 4.
A100 = Gpu("A100", 312, 2.039, 80, nvlink_gb_s=300, network_gb_s=25, pcie_gb_s=32)
H100 = Gpu("H100", 989, 3.35, 80, nvlink_gb_s=450, network_gb_s=50, pcie_gb_s=64)
H20 = Gpu("H20", 148, 4.0, 96, nvlink_gb_s=450, network_gb_s=50, pcie_gb_s=64)


@dataclass(frozen=True, slots=True)
class Work:
    """A step's questions and the shape of its mean rollout, and of its longest. Tokens are the model's own.

    The number of questions is the paper's (CalibAdv appendix G), that of samples its released script's; neither gives
    the rest. A prompt is Search-R1's of 190 tokens with a question; a search returns three passages of 100
    words, 450 tokens with titles and tags; two searches and an answer, 100 tokens each, are what questions of two hops
    take.
    """

    questions: int = 512
    samples: int = 5
    updates: int = 10  # optimizer steps over the step's rollouts: mini-batches of 256
    prompt_tokens: float = 200
    turns: float = 3  # that the policy writes; every one but the last is followed by a search
    action_tokens: float = 100  # a turn
    observation_tokens: float = 450  # a search
    longest_turns: float = 5
    longest_action_tokens: float = 2048  # in all its turns

    @property
    def rollouts(self) -> int:
        return self.questions * self.samples

    @property
    def searches(self) -> float:
        return self.rollouts * (self.turns - 1)

    @property
    def actions(self) -> float:
        """Sampled tokens of the mean rollout."""
        return self.turns * self.action_tokens

    @property
    def rollout_tokens(self) -> float:
        """Tokens of the mean rollout: prompt, actions and observations."""
        return self.prompt_tokens + self.actions + (self.turns - 1) * self.observation_tokens

    @property
    def context(self) -> float:
        """Tokens before a sampled one, in the mean: half of the rollout's turns, and half of its own."""
        before = (self.turns - 1) / 2 * (self.action_tokens + self.observation_tokens)
        return self.prompt_tokens + before + self.action_tokens / 2


@dataclass(frozen=True, slots=True)
class Assumptions:
    """How much of each peak is reached, and what is no matter of GPUs. Guesses in round numbers, measured nowhere."""

    learner_mfu: float = 0.4  # of the peak in a learner's passes, padding and idle gaps included
    engine_mfu: float = 0.5  # of the peak where an engine is bound by arithmetic
    bandwidth: float = 0.6  # of the memory's peak
    links: float = 0.7  # of NVLink's, the network's and PCIe's peak
    engine_step_s: float = 0.003  # of scheduling and launching, in each decoding step
    search_s: float = 0.5  # latency of a search under load
    searches_per_s: float = 200.0  # that one retriever answers
    store_gb_s: float = 4.0  # copies into and out of Ray's object store, by one process
    transfer_gb_s: float = 2.0  # an object between two nodes
    length_spread: float = 0.5  # standard deviation of rollouts' lengths over their mean


@dataclass(frozen=True, slots=True)
class Layout:
    """Who works on which GPUs. Colocated engines and learners are one beside the other on each GPU, and take turns."""

    engines: int
    learners: int
    zero: Literal[0, 3] = 3
    colocated: bool = False
    staleness: int = 0  # 1: a step's rollouts go on beside the learning of the one before
    retrievers: int = 1  # whose own GPUs are not counted
    forwards: int = 0  # passes without gradient over every rollout, e.g. of old log-probs

    @property
    def remote_nodes(self) -> int:
        """Nodes with engines other than that of the learner which publishes. Nodes are filled one by one."""
        gpus = self.engines + self.learners
        return 0 if self.colocated or gpus <= NODE_GPUS else math.ceil(self.engines / NODE_GPUS)


@dataclass(frozen=True, slots=True)
class Phase:
    """Seconds of a part of the step, by what they are spent on, and what bounds it."""

    parts: dict[str, float]
    bound: str

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step's phases, and whether its rollouts go on beside the learning of the step before."""

    rollout: Phase
    learn: Phase
    sync: Phase
    overlapped: bool

    @property
    def seconds(self) -> float:
        """rollout + learn + sync; max(rollout, learn) + sync where they overlap."""
        rollout, learn = self.rollout.seconds, self.learn.seconds
        return (max(rollout, learn) if self.overlapped else rollout + learn) + self.sync.seconds

    @property
    def bound(self) -> str:
        """The longest phase, and what bounds that."""
        name = max(("rollout", "learn", "sync"), key=lambda phase: getattr(self, phase).seconds)
        phase: Phase = getattr(self, name)
        return f"{name}: {phase.bound}"


@dataclass(frozen=True, slots=True)
class StepModel:
    """A model on GPUs of one kind, under assumptions."""

    shape: ModelShape
    gpu: Gpu
    work: Work = Work()
    assumed: Assumptions = Assumptions()

    def step(self, layout: Layout) -> StepTime:
        """The step's phases."""
        return StepTime(self.rollout(layout), self.learn(layout), self.publish(layout), layout.staleness > 0)

    # ---- operations ----

    def layer_flops(self, tokens: float, context: float) -> float:
        """Of a forward pass of `tokens` through the layers, each of which attends to `context` others in the mean.

        2 P_L a token (Kaplan et al. 2020, 2.1), and 4 L H for each token that it attends to: scores and weighted sum,
        with attention as wide as the hidden states, as in Qwen2.5 and Llama 3.
        """
        shape = self.shape
        layers = shape.parameters - (1 if shape.tied else 2) * shape.embedding
        return tokens * (2 * layers + 4 * shape.layers * shape.hidden * context)

    def head_flops(self, tokens: float) -> float:
        """Of the logits of `tokens`: 2 V H each."""
        return 2 * self.shape.embedding * tokens

    # ---- rollouts ----

    def rollout(self, layout: Layout) -> Phase:
        """All rollouts of a step: engines or retrievers, whichever take longer, and then the tail.

        An engine works on its batch of `running` rollouts until the mean rollout is done; searches of some are hidden
        behind the tokens of others. What the longest rollout still has to sample then, and all its searches, are the
        tail.
        """
        work, assumed, engines = self.work, self.assumed, layout.engines
        prefill_s, batch = self.prefill_s(engines), self.running(layout)
        step_s, bound = self.decoding_step(batch)
        decode_s = work.rollouts * work.actions / engines / batch * step_s
        search_s = work.searches / (layout.retrievers * assumed.searches_per_s)
        rest = max(0.0, work.longest_action_tokens - work.actions)
        tail_s = rest * self.decoding_step(1)[0] + (work.longest_turns - 1) * assumed.search_s
        waiting_s = max(0.0, search_s - prefill_s - decode_s)
        bounds = {"the retriever": search_s}
        if not waiting_s:
            bounds = {"prefill, arithmetic": prefill_s, f"decoding, {bound}": decode_s}
        bounds["the longest rollout"] = tail_s
        parts = {
            "prefill": prefill_s,
            "decoding": decode_s,
            "waiting for the retriever": waiting_s,
            "tail": tail_s,
        }
        return Phase(parts, max(bounds, key=bounds.__getitem__))

    def prefill_s(self, engines: int) -> float:
        """Seconds in which engines read each prompt once for all samples, and each observation once.

        All that came before is in the prefix cache. Bound by arithmetic.
        """
        work = self.work
        prompts = self.layer_flops(work.questions * work.prompt_tokens, work.prompt_tokens / 2)
        observed = self.layer_flops(work.searches * work.observation_tokens, work.rollout_tokens / 2)
        return (prompts + observed) / engines / (self.gpu.bf16_tflops * TERA * self.assumed.engine_mfu)

    def decoding_step(self, batch: float) -> tuple[float, str]:
        """Seconds in which an engine samples a token for each of `batch` rollouts, and which of two bounds holds.

        The weights and the batch's keys and values are read once ("memory"), and each token goes through layers and
        head ("arithmetic"): the longer of both, and the engine's own time.
        """
        context, shape = self.work.context, self.shape
        read = shape.parameters * WEIGHT + batch * context * kv_token_bytes(shape, WEIGHT)
        flops = self.layer_flops(batch, context) + self.head_flops(batch)
        arithmetic_s = flops / (self.gpu.bf16_tflops * TERA * self.assumed.engine_mfu)
        memory_s = read / (self.gpu.hbm_tb_s * TERA * self.assumed.bandwidth)
        bound = "memory" if memory_s >= arithmetic_s else "arithmetic"
        return max(memory_s, arithmetic_s) + self.assumed.engine_step_s, bound

    def running(self, layout: Layout) -> float:
        """Rollouts that an engine has under way: its share, at most `CONCURRENT` and what its KV cache holds; 1 or
        more. Beside a colocated learner, whose state and published weights stay, the cache is smaller."""
        shape, card = self.shape, card_bytes(self.gpu.memory_gb)
        room = SHARE * card
        if layout.colocated:
            state = sum_bytes(state_items(shape.parameters, zero=layout.zero, learners=layout.learners))
            room = min(room, card - state - shape.parameters * WEIGHT)
        own = sum_bytes(engine_items(shape, item=WEIGHT, sequences=CONCURRENT))
        held = (room - own) / (self.work.rollout_tokens * kv_token_bytes(shape, WEIGHT))
        return max(1.0, min(CONCURRENT, self.work.rollouts / layout.engines, held))

    # ---- learning ----

    def learn(self, layout: Layout) -> Phase:
        """All updates of a step. Nothing of what is sent is hidden behind arithmetic (`overlap_comm` is off)."""
        work, gpu, n = self.work, self.gpu, layout.learners
        rate = n * gpu.bf16_tflops * TERA * self.assumed.learner_mfu
        tokens, actions = work.rollouts * work.rollout_tokens, work.rollouts * work.actions
        layers, head = self.layer_flops(tokens, work.rollout_tokens / 2), self.head_flops(actions)
        # Forward 1, backward 2, and 1 again with checkpointing: 8 P a token (Kaplan et al. 2020); the head, which works
        # on action tokens alone, computes its logits again in its own backward pass.
        trained_s = 4 * (layers + head) / rate
        slowest = slowest_share(n, work.questions, work.samples, work.updates, self.assumed.length_spread)
        micro = math.ceil(tokens / (n * work.updates) * slowest / TOKEN_BUDGET)
        # M is what a reduce-scatter or a gathering of fp32 numbers moves. Stage 0 sums once, which is 2 M; stage 3
        # gathers weights for forward and backward and scatters gradients in each micro-batch, and gathers for each
        # further forward pass (Rajbhandari et al. 2020, 7).
        moved = 4 * self.shape.parameters * (n - 1) / n
        sent = work.updates * moved * ((3 + layout.forwards) * micro if layout.zero else 2)
        stepped = self.shape.parameters / (n if layout.zero else 1)
        parts = {
            "training passes": trained_s,
            "further forward passes": layout.forwards * (layers + head) / rate,
            "waiting for the slowest learner": trained_s * (slowest - 1),
            "gradients and weights sent": sent / (gpu.bus_bytes_per_s(n) * self.assumed.links),
            "AdamW": work.updates * ADAMW_BYTES * stepped / (gpu.hbm_tb_s * TERA * self.assumed.bandwidth),
        }
        bounds = ("arithmetic", "arithmetic", "uneven mini-batches", "links between learners", "memory")
        return Phase(parts, _longest(parts, bounds))

    # ---- publication ----

    def publish(self, layout: Layout) -> Phase:
        """New weights reach every engine through Ray's object store.

        Packing copies each chunk once, into the store, from the buffer that its tensors were copied to; loading once
        more; engines of one node share what arrived there and load side by side. Sending is counted as if the
        learner's node sent to each other one. An engine beside a learner copies from there instead, in its own
        memory, and sleeps without its old ones (vLLM's level 2); packing is done all the same.
        `time/sync_s` of a run is the packing alone: engines load when they next have work, in `time/rollout_s`.
        """
        gpu, assumed, n = self.gpu, self.assumed, layout.learners
        size = self.shape.parameters * WEIGHT
        pcie, store = gpu.pcie_gb_s * GIGA * assumed.links, assumed.store_gb_s * GIGA
        gathered = 4 * self.shape.parameters * (n - 1) / n if layout.zero else 0.0
        inside_s = 2 * size / (gpu.hbm_tb_s * TERA * assumed.bandwidth)
        parts = {
            "gathering": gathered / (gpu.bus_bytes_per_s(n) * assumed.links),
            "packing": size / pcie + size / store,
            "sending to other nodes": layout.remote_nodes * size / (assumed.transfer_gb_s * GIGA),
            "loading": inside_s if layout.colocated else size / store + size / pcie,
        }
        bounds = (
            "links between learners",
            "copies into the object store",
            "the network between nodes",
            "copies by engines",
        )
        return Phase(parts, _longest(parts, bounds))


@cache
def slowest_share(learners: int, questions: int, samples: int, updates: int, spread: float) -> float:
    """How much more than its even share of a mini-batch the learner with most of it has, in the mean; 1 for one.

    By the project's own dealing (calibadv/dealing.py) of two steps whose rollouts' lengths are log-normal, `spread`
    their standard deviation over their mean.
    """
    if learners == 1:
        return 1.0
    sigma, rollouts = math.sqrt(math.log1p(spread**2)), questions * samples
    shares = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        tokens_RM = np.zeros((rollouts, updates))
        minibatch_R = random.permutation(rollouts) * updates // rollouts
        tokens_RM[np.arange(rollouts), minibatch_R] = random.lognormal(0, sigma, rollouts)
        owner_R = deal_rollouts(tokens_RM, [np.zeros((samples, samples))] * questions, learners)
        shares.append(busiest(tokens_RM, owner_R, learners))
    return fmean(shares)


def _longest(parts: dict[str, float], bounds: tuple[str, ...]) -> str:
    seconds = tuple(parts.values())
    return bounds[seconds.index(max(seconds))]
