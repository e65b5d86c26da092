"""Measures on one GPU what docs/gpu.md can only predict, without Ray, vLLM or a network (torch, transformers).

    PYTHONPATH=. python scripts/gpu_check.py --out gpu_check.jsonl --shape 3b

One JSON line a phase, written when it ends: what was measured, and `passes`. A phase that fails says why, and the next
one runs. `--shape tiny --device cpu` runs all but what only a GPU has, in seconds: that is its test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from calibadv.batching import Row
from calibadv.cluster.chunks import StoredChunks, chunk_state
from calibadv.cluster.device_copy import DeviceCopy
from calibadv.config import LearnerConfig
from calibadv.losses import token_stats
from calibadv.memory.items import CONTEXT, learner_items, sum_bytes
from calibadv.memory.shape import KNOWN, ModelShape
from calibadv.methods import make_method
from calibadv.micro_batches import MicroBatch, micro_batches
from calibadv.rllib.fused import fuse
from calibadv.rllib.objective import Divisors, loss_terms, to_tensors, total
from calibadv.rllib.packed_attention import PACKED
from calibadv.rllib.policy import policy_pass

TINY = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}
SHAPES = {"tiny": TINY, **{size.lower(): KNOWN[f"Qwen/Qwen2.5-{size}"] for size in ("0.5B", "1.5B", "3B", "7B")}}
LENGTHS = {"tiny": (64, 128)}  # longest row and padded tokens of a micro-batch
LONG = (4096, 16_384)
UNUSED = ("sampler_logprobs_N", "old_logprobs_N", "extra_weights_N", "extra_counts_N", "values_N", "returns_N")
MOST_FP32 = 1e-4  # nats between a CPU and a GPU in fp32
MOST_BF16 = 0.05  # mean, nats


@dataclass(frozen=True)
class Machine:
    """Where and what is measured."""

    device: torch.device
    shape: str

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, function: Callable[[], Any], times: int = 3) -> float:
        """The median of some runs after a first one."""
        taken = []
        for _ in range(times + 1):
            self.wait()
            begun = time.perf_counter()
            function()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken[1:])

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def peak_bytes(self, function: Callable[[], Any]) -> int | None:
        """The most that was allocated while it ran; None on a CPU."""
        if not self.cuda:
            function()
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device)

    def model(self, layers: int | None = None) -> Any:
        """The shape with random weights in fp32, on the device; logits are spread as a trained model's are."""
        fields = SHAPES[self.shape] | ({"num_hidden_layers": layers} if layers else {})
        torch.manual_seed(0)
        with self.device:
            model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[fields["model_type"]].from_dict(fields))
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(4)
        return model.float().train()


class Operands(TorchDispatchMode):
    """Counts matrix products by the dtype of what they multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::mm", "aten::addmm", "aten::bmm"):
            self.seen[str(args[func._schema.name == "aten::addmm"].dtype)] += 1
        return func(*args, **(kwargs or {}))


def rows(shape: str, number: int) -> list[Row]:
    """Rollouts of drawn lengths: a prompt, actions, an observation, actions; normal advantages."""
    longest, vocabulary, noise = (LENGTHS.get(shape, LONG)[0], SHAPES[shape]["vocab_size"], np.random.default_rng(0))
    made = []
    for _ in range(number):
        length = int(noise.integers(longest // 4, longest))
        action_T = np.arange(length) % 64 >= 50
        actions = int(action_T.sum())
        flat = {name: np.zeros(actions, np.float32) for name in UNUSED}
        made.append(
            Row(
                ids_T=noise.integers(0, vocabulary, length),
                action_T=action_T,
                minibatch=0,
                turn_N=np.zeros(actions, np.int64),
                advantages_N=noise.normal(size=actions).astype(np.float32),
                weights_N=np.ones(actions, np.float32),
                **flat,
            )
        )
    return made


def machine(at: Machine) -> dict[str, Any]:
    """Versions, and the products that later numbers are compared with."""
    size = 8192 if at.cuda else 256
    found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    if at.cuda:
        card = torch.cuda.get_device_properties(at.device)
        found |= {"card": card.name, "capability": f"{card.major}.{card.minor}", "bytes": card.total_memory}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size, device=at.device, dtype=dtype) for _ in range(2))
        found[f"tflops_{str(dtype)[6:]}"] = round(2 * size**3 / at.seconds(lambda a=a, b=b: a @ b) / 1e12, 3)
    return found | {"passes": True}


def head(at: Machine) -> dict[str, Any]:
    """The chunked head: forward under autocast, backward outside of it, dtypes, and the error of its gradients."""
    fields = SHAPES[at.shape]
    hidden, vocabulary, tokens = fields["hidden_size"], fields["vocab_size"], 3440 if at.cuda else 64
    torch.manual_seed(0)
    given = torch.randn(tokens, hidden, device=at.device, requires_grad=True)
    weight = (torch.randn(vocabulary, hidden, device=at.device) * hidden**-0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), device=at.device)

    def forward() -> torch.Tensor:
        with torch.autocast(at.device.type, torch.bfloat16):
            return token_stats(given, weight, targets).logprobs_N

    def both() -> None:
        given.grad = weight.grad = None
        forward().sum().backward()

    with Operands() as operands:
        both()
    assert given.grad is not None
    exact_HN = (
        weight.double()[targets] - torch.softmax(given.double() @ weight.double().T, -1) @ weight.double()
    ).detach()
    error = float((given.grad - exact_HN).norm() / exact_HN.norm())
    with torch.no_grad():
        forward_s = at.seconds(forward)
    both_s = at.seconds(both)
    return {
        "operands": dict(operands.seen),
        "forward_ms": 1e3 * forward_s,
        "backward_ms": 1e3 * (both_s - forward_s),
        "relative_error": error,
        "passes": set(operands.seen) == {"torch.bfloat16"} and error < 0.02,
    }


def agreement(at: Machine) -> dict[str, Any]:
    """Log-probs of the same weights: fp32 here against fp32 on a CPU, and under autocast; four layers."""
    model = at.model(layers=min(4, SHAPES[at.shape]["num_hidden_layers"]))
    batch = to_tensors(micro_batches(rows(at.shape, 1), LENGTHS.get(at.shape, LONG)[1])[0], at.device)
    with torch.no_grad():
        here = policy_pass(model, batch)[1].logprobs_N.cpu()
        with torch.autocast(at.device.type, torch.bfloat16):
            cast, again = (policy_pass(model, batch)[1].logprobs_N.cpu() for _ in range(2))
        there = policy_pass(model.cpu(), {name: tensor.cpu() for name, tensor in batch.items()})[1].logprobs_N
    fp32, bf16 = float((here - there).abs().max()), float((cast - here).abs().mean())
    return {
        "fp32_max": fp32,
        "bf16_mean": bf16,
        "bf16_twice_equal": bool(torch.equal(cast, again)),
        "passes": fp32 <= MOST_FP32 and bf16 <= MOST_BF16,
    }


def attention(at: Machine) -> dict[str, Any]:
    """Peak memory of attention with fewer key-value heads, by length: linear, or the square of it in fp32."""
    fields, found = SHAPES[at.shape], {}
    attend = torch.nn.functional.scaled_dot_product_attention
    heads, kv_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    width = fields["hidden_size"] // heads
    for dtype in (torch.float32, torch.bfloat16):
        for length in (1024, 2048, 4096) if at.cuda else (64, 128):
            q, k, v = (
                torch.randn(1, n, length, width, device=at.device, dtype=dtype) for n in (heads, kv_heads, kv_heads)
            )
            peak = at.peak_bytes(lambda q=q, k=k, v=v: attend(q, k, v, is_causal=True, enable_gqa=True))
            found[f"{str(dtype)[6:]}_{length}_bytes"] = peak
    short, long = found.get("bfloat16_1024_bytes"), found.get("bfloat16_4096_bytes")
    return found | {"passes": not (short and long) or long < 5 * short}


def packing(at: Machine) -> dict[str, Any]:
    """Packed rows, every second of which begins as the one before, against padded ones; four layers."""
    model, found = at.model(layers=min(4, SHAPES[at.shape]["num_hidden_layers"])), {}
    given = rows(at.shape, 8)
    for before, row in zip(given[::2], given[1::2], strict=True):
        common = min(len(before.ids_T), len(row.ids_T)) // 4
        row.ids_T[:common] = before.ids_T[:common]
    logprobs: dict[bool, list[Any]] = {}
    for packed in (False, True):
        model.set_attn_implementation(PACKED if packed else "sdpa")
        made = micro_batches(given, LENGTHS.get(at.shape, LONG)[1], packed=packed)
        parts: list[Any] = [None] * len(given)

        def update(made: Any = made, parts: list[Any] = parts) -> None:
            for micro in made:
                with torch.autocast(at.device.type, torch.bfloat16):
                    stats = policy_pass(model, to_tensors(micro, at.device))[1]
                stats.logprobs_N.sum().backward()
                flat_N = stats.logprobs_N.detach().cpu().numpy()
                for index, part in zip(micro.rows, micro.by_row(flat_N), strict=True):
                    parts[index] = part
            model.zero_grad(set_to_none=True)

        name = "packed" if packed else "padded"
        found[f"{name}_s"], found[f"{name}_tokens"] = at.seconds(update), sum(micro.ids_BT.size for micro in made)
        logprobs[packed] = parts
    mean = float(np.mean(np.abs(np.concatenate(logprobs[True]) - np.concatenate(logprobs[False]))))
    return found | {"bf16_mean": mean, "passes": mean <= MOST_BF16}


def fused(at: Machine) -> dict[str, Any]:
    """liger-kernel's kernels (`learner.fused`) against the model's own, four layers in bf16."""
    if not at.cuda:
        return {"passes": True, "skipped": "on GPUs alone"}
    model, found = at.model(layers=min(4, SHAPES[at.shape]["num_hidden_layers"])), {}
    made = micro_batches(rows(at.shape, 8), LENGTHS.get(at.shape, LONG)[1])
    logprobs: list[Any] = []

    def update() -> None:
        logprobs.clear()
        for micro in made:
            with torch.autocast(at.device.type, torch.bfloat16):
                stats = policy_pass(model, to_tensors(micro, at.device))[1]
            stats.logprobs_N.sum().backward()
            logprobs.append(stats.logprobs_N.detach().cpu().numpy())
        model.zero_grad(set_to_none=True)

    found["own_s"], found["own_peak_bytes"] = at.seconds(update), at.peak_bytes(update)
    own_N = np.concatenate(logprobs)
    fuse(model)
    found["fused_s"], found["fused_peak_bytes"] = at.seconds(update), at.peak_bytes(update)
    mean = float(np.abs(np.concatenate(logprobs) - own_N).mean())
    return found | {"bf16_mean": mean, "passes": mean <= MOST_BF16}


def learner(at: Machine) -> dict[str, Any]:
    """Updates of the whole shape, rows padded and, as a run has them, packed: tokens a second, and the peak against
    what --dry-run predicts."""
    longest, budget = LENGTHS.get(at.shape, LONG)
    model, settings, method = at.model(), LearnerConfig(dtype="bfloat16"), make_method("grpo", {})
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=at.cuda)
    given = rows(at.shape, max(4, 2 * budget // longest))
    planned = sum_bytes(learner_items(_shape(model), tokens=budget, autocast=True, checkpointing=True))
    planned -= CONTEXT  # which the allocator does not count
    found: dict[str, Any] = {"planned_bytes": planned}

    def update(made: Sequence[MicroBatch]) -> None:
        actions = float(sum(micro.num_actions for micro in made))
        divisors = Divisors(actions, actions, actions, 0.0)
        optimizer.zero_grad(set_to_none=True)
        for micro in made:
            batch = to_tensors(micro, at.device)
            with torch.autocast(at.device.type, torch.bfloat16):
                stats = policy_pass(model, batch)[1]
            out = {"logprobs_N": stats.logprobs_N, "entropy_N": stats.entropy_N}
            total(loss_terms(batch, out, divisors, settings, method)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for name in ("padded", "packed"):
        model.set_attn_implementation(PACKED if name == "packed" else "sdpa")
        made = micro_batches(given, budget, packed=name == "packed")
        update(made)  # moments are made
        peak, seconds = at.peak_bytes(lambda made=made: update(made)), at.seconds(lambda made=made: update(made))
        found[f"{name}_s"], found[f"{name}_micro_batches"] = seconds, len(made)
        found[f"{name}_tokens_per_s"] = sum(len(row.ids_T) for row in given) / seconds
        found[f"{name}_peak_bytes"], found[f"{name}_peak_to_plan"] = peak, peak / planned if peak else None
    ratio = found["packed_peak_to_plan"]
    return found | {"passes": ratio is None or 0.85 <= ratio <= 1.0}


READER = """
import json, sys, time
from hashlib import sha256
from calibadv.cluster.device_copy import read, within_reach
from calibadv.cluster.packed import SharedCopy
place, device, serial, *handles = json.loads(sys.stdin.read())
shared = within_reach([SharedCopy(place, device, serial, tuple(map(bytes.fromhex, handles)))])
taken_s, digests = 0.0, []
for number in range(len(shared.handles)):
    begun = time.perf_counter()
    chunk = read(shared, number)
    taken_s += time.perf_counter() - begun
    digests.append(sha256(chunk.cpu().numpy()).hexdigest())
sys.stdout.write(json.dumps([taken_s, digests]))
"""


def publish(at: Machine) -> dict[str, Any]:
    """The whole shape's weights in bf16: packed into main memory as for the object store (whose own copy needs Ray),
    kept on the device, and read there by a process of its own, as an engine on the learner's GPU does (CUDA IPC)."""
    if not at.cuda:  # by name, not by a file descriptor that only a child would be given
        torch.multiprocessing.set_sharing_strategy("file_system")
    model, copy, digests = at.model(), DeviceCopy(at.device), []

    def packed(put: Callable[[torch.Tensor], Any] | None, copy: DeviceCopy | None = None) -> Any:
        def filled(chunk: torch.Tensor, _: torch.device) -> Any:
            at.wait()  # until what was copied into pinned memory is there
            return put(chunk) if put else None

        store = (lambda size: StoredChunks(size, filled)) if put else None
        return chunk_state(model.named_parameters(), dtype=torch.bfloat16, copy=copy, store=store)

    packed_s, kept_s = at.seconds(lambda: packed(len)), at.seconds(lambda: packed(None, copy))
    stored = packed(lambda chunk: digests.append(hashlib.sha256(chunk.numpy()).hexdigest()), copy)
    if not stored.copies:
        raise RuntimeError("no copy was kept on the device: standard error says why")
    shared = stored.copies[0]
    told = json.dumps([shared.place, shared.device, shared.serial, *(handle.hex() for handle in shared.handles)])
    done = subprocess.run([sys.executable, "-c", READER], input=told, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    read_s, theirs = json.loads(done.stdout)
    return {
        "bytes": sum(spec.nbytes for spec in stored.manifest),
        "packed_s": packed_s,
        "kept_s": kept_s,
        "read_s": read_s,
        "passes": theirs == digests,
    }


def _shape(model: Any) -> ModelShape:
    config = model.config
    return ModelShape(
        parameters=model.num_parameters(),
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
    )


PHASES: tuple[Callable[[Machine], dict[str, Any]], ...] = (
    machine,
    head,
    agreement,
    attention,
    packing,
    fused,
    learner,
    publish,
)


def measured(at: Machine, only: set[str], budget_s: float) -> Iterator[dict[str, Any]]:
    """What each phase found; none is begun when the time is up."""
    begun = time.monotonic()
    for phase in PHASES:
        if only and phase.__name__ not in only:
            continue
        if time.monotonic() - begun > budget_s:
            yield {"phase": phase.__name__, "passes": None, "error": f"not begun: {budget_s:g} s were over"}
            continue
        started = time.monotonic()
        try:
            found = phase(at)
        except Exception as error:
            found = {"passes": False, "error": f"{type(error).__name__}: {error}"[:500]}
        if at.cuda:
            torch.cuda.empty_cache()
        yield {"phase": phase.__name__, "shape": at.shape, "took_s": round(time.monotonic() - started, 1), **found}


def main() -> int:
    """0 where every phase passes."""
    parser = argparse.ArgumentParser(prog="gpu_check.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a phase")
    parser.add_argument("--shape", choices=SHAPES, default="3b", help="sizes of Qwen2.5, or tiny (default: 3b)")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: cuda)")
    names = [phase.__name__ for phase in PHASES]
    parser.add_argument("--only", default="", help=f"phases, with commas, of {', '.join(names)}")
    parser.add_argument("--budget-s", type=float, default=420, help="no phase is begun after so many seconds")
    asked = parser.parse_args()
    only = set(filter(None, asked.only.split(",")))
    if unknown := sorted(only.difference(names)):
        parser.error(
            f"--only {asked.only}: no phase is called {', '.join(unknown)}; expected some of {', '.join(names)}"
        )
    passed = True
    with asked.out.open("w", encoding="utf-8") as out:
        at = Machine(torch.device(asked.device), asked.shape)
        for found in measured(at, only, asked.budget_s):
            line = json.dumps(found)
            out.write(line + "\n")
            out.flush()
            sys.stdout.write(line + "\n")
            passed &= bool(found["passes"])
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
