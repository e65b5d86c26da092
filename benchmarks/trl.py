"""The learner against TRL's: action tokens a CPU second and peak memory of one update on the same 40 rollouts.

Rollouts of the pocket policy, eight questions of five, documents masked; forwards and backwards, no optimizer step,
fp32. TRL's side is its own `_compute_loss` (`peers/trl_update.py`), in batches of eight as it makes them; ours has
micro-batches of 2,048 tokens. Each side runs in a process of its own; CPU seconds, and the growth of resident memory
over the loaded model.

wide    a random Qwen2 of 47 million parameters, vocabulary 151,936; TRL scores the positions that it scores on a GPU
pocket  the shipped policy, 2 million parameters; TRL as it is on a CPU
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learner import CPU, METHOD, rolled_out, wide
from benchmarks.lines import Line, at_least, at_most, run
from benchmarks.peers.environment import environment
from benchmarks.scaling_measure import resident_peak
from calibadv.batching import Row, to_row
from calibadv.config import LearnerConfig
from calibadv.micro_batches import micro_batches
from calibadv.pocket import policy_path
from calibadv.rllib.objective import count, loss_terms, to_tensors, total
from calibadv.rllib.policy import load_causal_lm, policy_pass

PACKAGES = ("trl==1.16.0", "datasets==5.2.0", "dill==0.4.1", "multiprocess==0.70.19", "xxhash==4.1.0")
QUESTIONS, TURNS, UPDATES = 8, 1, 1  # processes of each side, in turns; updates in each
TOKEN_BUDGET = 2048  # of a micro-batch: a CPU is as fast with more, and holds more
GOALS = {"wide": 3.5, "pocket": 3.0}
MEMORY_GOAL = 1 / 3
TRL = Path(__file__).parent / "peers" / "trl_update.py"


def measure() -> list[Line]:
    """Speed and memory beside TRL's, for either policy."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        groups = asyncio.run(rolled_out(folder, questions=QUESTIONS))
        rows = [
            (to_row(t, advantages_N), len(t.prompt_ids))
            for group in groups
            for t, advantages_N in zip(group.trajectories, METHOD.advantages(group), strict=True)
        ]
        np.savez(folder / "rows.npz", **arrays_of(rows))
        wide().save_pretrained(folder / "wide")
        env = environment("trl", PACKAGES)
        actions = sum(row.action_T.sum() for row, _ in rows)
        for policy, model in (("wide", folder / "wide"), ("pocket", policy_path())):
            theirs = [str(TRL), str(folder / "rows.npz"), str(model), str(policy_path())]
            theirs += ["scored" if policy == "wide" else "every", str(UPDATES)]
            ours = ["-m", "benchmarks.trl", "--ours", str(folder / "rows.npz"), str(model)]
            taken: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
            for _ in range(TURNS):
                taken["ours"].append(_said(ours, None))
                taken["theirs"].append(_said(theirs, env))
            cpu_s = {side: min(each["cpu_s"] for each in made) for side, made in taken.items()}
            peak = {side: max(each["peak_bytes"] for each in made) for side, made in taken.items()}
            lines += lines_of(policy, int(actions), cpu_s, peak)
    return lines


def lines_of(policy: str, actions: int, cpu_s: Mapping[str, float], peak: Mapping[str, float]) -> list[Line]:
    """Speed and memory of one policy, from seconds and bytes of "ours" and "theirs"."""
    what = {
        "wide": "learner, 47 M parameters, vocabulary 151,936, against TRL with the head positions of a GPU",
        "pocket": "learner, pocket policy, against TRL as it is on a CPU",
    }[policy]
    rates = f" ({actions / cpu_s['ours']:,.0f} and {actions / cpu_s['theirs']:,.0f} action tokens a CPU second)"
    sizes = f" ({peak['ours'] / 1e6:,.0f} and {peak['theirs'] / 1e6:,.0f} MB over the loaded model)"
    return [
        at_least(what, cpu_s["theirs"] / cpu_s["ours"], GOALS[policy], more=rates),
        at_most(f"{what}: peak memory", peak["ours"] / peak["theirs"], round(MEMORY_GOAL, 2), " x", more=sizes),
    ]


def arrays_of(rows: Sequence[tuple[Row, int]]) -> dict[str, Any]:
    """Rollouts as flat arrays, one rollout after the other: what TRL's side reads. Both have the same advantages."""
    logprobs = []
    for row, _ in rows:
        each = np.zeros(len(row.ids_T), np.float32)
        each[row.action_T] = row.sampler_logprobs_N
        logprobs.append(each)
    return {
        "ids": np.concatenate([row.ids_T for row, _ in rows]),
        "action": np.concatenate([row.action_T for row, _ in rows]),
        "logprobs": np.concatenate(logprobs),
        "lengths": np.array([len(row.ids_T) for row, _ in rows]),
        "prompts": np.array([prompt for _, prompt in rows]),
        "advantages": np.array([row.advantages_N[0] for row, _ in rows], np.float32),
    }


def update(rows_file: Path, model_folder: str) -> dict[str, float]:
    """CPU seconds and growth of memory of our update on the rows; what `peers/trl_update.py` says of TRL's."""
    torch.set_num_threads(1)
    arrays = dict(np.load(rows_file))
    ends = np.cumsum(arrays["lengths"])[:-1]
    rows = [
        _row(ids, action, logprobs, advantage)
        for ids, action, logprobs, advantage in zip(
            *(np.split(arrays[name], ends) for name in ("ids", "action", "logprobs")), arrays["advantages"], strict=True
        )
    ]
    model = load_causal_lm(model_folder).train()
    settings = LearnerConfig()
    batches = micro_batches(rows, TOKEN_BUDGET, packed=True)
    least, before = float("inf"), _resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    for _ in range(UPDATES):
        begun = time.process_time()
        divisors = count(batches, CPU, settings)
        for micro in batches:
            batch = to_tensors(micro, CPU)
            stats = policy_pass(model, batch)[1]
            out = {"logprobs_N": stats.logprobs_N, "entropy_N": stats.entropy_N}
            torch.autograd.backward(total(loss_terms(batch, out, divisors, settings, METHOD)))
        model.zero_grad(set_to_none=True)
        least = min(least, time.process_time() - begun)
    return {"cpu_s": least, "peak_bytes": resident_peak(Path("/proc/self/status").read_text("utf-8")) - before}


def _row(ids: Any, action: Any, logprobs: Any, advantage: float) -> Row:
    """A row of arrays, its actions one turn."""
    actions = int(action.sum())
    ones_N, zeros_N = np.ones(actions, np.float32), np.zeros(actions, np.float32)
    return Row(
        ids_T=ids,
        action_T=action,
        minibatch=0,
        turn_N=np.zeros(actions, np.int64),
        sampler_logprobs_N=logprobs[action],
        old_logprobs_N=logprobs[action],
        advantages_N=ones_N * advantage,
        weights_N=ones_N,
        extra_weights_N=zeros_N,
        extra_counts_N=zeros_N,
        values_N=zeros_N,
        returns_N=zeros_N,
    )


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _said(arguments: Sequence[str], env: Mapping[str, str] | None) -> dict[str, float]:
    done = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, env=env, text=True)
    said: dict[str, float] = json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
    return said


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        sys.stdout.write(json.dumps(update(Path(sys.argv[2]), sys.argv[3])) + "\n")
    else:
        sys.exit(run(measure, __doc__))
