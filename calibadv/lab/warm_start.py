"""Warm start: cross-entropy on reading drills, then on the demonstrator's dialogues in many worlds.

Reading comes first: statements of facts just shown. A policy that has it learns the dialogues' form within minutes; one
that has not takes every value at random. Shares of a row's loss: 1 on what the agent writes, a little on what it reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from calibadv.lab.demonstrator import Demonstrator
from calibadv.lab.language import EOS, FIRST_NAMES, LAST_NAMES, PAD, PASSAGE_END, RELATIONS_A_KIND, Language, language
from calibadv.lab.policy import Policy
from calibadv.lab.tasks import PLAIN, Task
from calibadv.lab.world import World

UPDATES = 1500
TOLD = 25  # updates whose mean loss is written down
FIRST_WORLD, WORLDS = 1000, 24  # training worlds; a laboratory run has one of its own
FOREIGN = 0.01  # share of rows of tail words alone: the policy has seen them, and knows that they do not belong
READ = 0.05  # weight of prompts and observations in the loss
DRILL_UPDATES, DRILL_ROWS, DIALOGUE_ROWS = 280, 48, 24
DRILLED = 0.25  # share of drills among the dialogues
POOL = 8  # batches that are sorted by length together, so that little is padding
WARM_UP = 20  # updates
RATE, RATE_OTHER = 0.01, 0.002  # peaks, of Muon for matrices and of AdamW for the rest

Example = tuple[list[int], list[float]]  # ids, and each one's weight as a target


def load_start(path: Path = PLAIN.start) -> Policy:
    """The shipped policy of the plain task, or another that `make_start` wrote."""
    policy = Policy()
    policy.load_state_dict(load_file(path))
    return policy


def warm_start(policy: Policy, updates: int = UPDATES, seed: int = 0, task: Task = PLAIN) -> Iterator[float]:
    """Trains `policy` an update at a time; yields its loss, nats a token that the agent writes.

    After the last one it has the dialogue's form, reads fairly well and searches badly. Equal calls
    are equal bit by bit.
    """
    lang = language()
    matrices = [p for name, p in policy.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in policy.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = {
        RATE: torch.optim.Muon(matrices, lr=RATE, weight_decay=0.0, momentum=0.95),
        RATE_OTHER: torch.optim.AdamW(others, lr=RATE_OTHER, betas=(0.9, 0.98), weight_decay=0.0),
    }
    pad = lang.id_of[PAD]
    for update, batch in zip(range(updates), batches(lang, seed, task), strict=False):
        for peak, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = peak * min(1.0, (update + 1) / WARM_UP, 1.5 * (1 - update / updates))
        ids_BT, weights_BT = padded(batch, pad)
        loss, written = _losses(policy, ids_BT, weights_BT)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
        policy.zero_grad(set_to_none=True)
        yield written


def new_policy(seed: int = 0) -> Policy:
    """An untrained policy; equal for equal seeds."""
    torch.manual_seed(seed)
    return Policy()


def make_start(path: Path, task: Task = PLAIN, tell: Callable[[int, float], None] = lambda *_: None) -> None:
    """The whole recipe, five to eight CPU-minutes: writes the task's start, and beside it means of 25 losses."""
    torch.set_num_threads(1)
    policy, losses = new_policy(), list[float]()
    for update, loss in enumerate(warm_start(policy, task=task), start=1):
        losses.append(loss)
        if update % TOLD == 0:
            tell(update, fmean(losses[-TOLD:]))
    save_file({name: tensor.contiguous() for name, tensor in policy.state_dict().items()}, path)
    means = [round(fmean(losses[i : i + TOLD]), 4) for i in range(0, len(losses), TOLD)]
    path.with_suffix(".json").write_text(
        json.dumps({"updates": UPDATES, "seed": 0, f"mean_loss_of_{TOLD}": means}), "utf-8"
    )


def _losses(policy: Policy, ids_BT: Tensor, weights_BT: Tensor) -> tuple[Tensor, float]:
    """The weighted loss, and its mean over what the agent writes."""
    weights_BT = weights_BT[:, 1:]
    counted = weights_BT > 0
    logits_NV = policy(ids_BT)[:, :-1][counted] @ policy.embed.weight.T
    nll_N = cross_entropy(logits_NV, ids_BT[:, 1:][counted], reduction="none")
    weights_N = weights_BT[counted]
    return (nll_N * weights_N).sum() / weights_N.sum(), float(nll_N.detach()[weights_N == 1].mean())


def padded(batch: list[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and weights [B, T], padded on the right with weight 0."""
    width = max(len(ids) for ids, _ in batch)
    ids_BT = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in batch])
    return ids_BT, torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in batch])


def batches(lang: Language, seed: int, task: Task = PLAIN) -> Iterator[list[Example]]:
    """Batches of rows of about equal length, without end: drills of growing difficulty, then dialogues and drills."""
    rng = random.Random(f"batches {seed}")
    hardness = [0.0]
    drilled, played = drills(lang, seed, lambda: hardness[0]), dialogues(lang, seed, task)
    update = 0
    while True:
        only_drills = update < DRILL_UPDATES
        hardness[0] = min(0.5, update / 120) if only_drills else 1.0
        rows = DRILL_ROWS if only_drills else DIALOGUE_ROWS
        pool = [next(drilled if only_drills or rng.random() < DRILLED else played) for _ in range(POOL * rows)]
        pool.sort(key=lambda example: len(example[0]))
        chunks = [pool[i : i + rows] for i in range(0, len(pool), rows)]
        rng.shuffle(chunks)
        yield from chunks
        update += len(chunks)


def dialogues(lang: Language, seed: int, task: Task = PLAIN) -> Iterator[Example]:
    """The demonstrator's dialogues, each in one of the training worlds, and a few rows of words of the tail."""
    rng = random.Random(f"dialogues {seed}")
    worlds = [World(FIRST_WORLD + index, task.hops) for index in range(WORLDS)]
    players = [Demonstrator(world, lang, rng, task) for world in worlds]
    while True:
        if rng.random() < FOREIGN:
            ids = lang.ids(rng.choices(lang.tail, k=rng.randrange(20, 60)))
            yield ids, [0.0] + [1.0] * (len(ids) - 1)
            continue
        which = rng.randrange(WORLDS)
        ids, weights = list[int](), list[float]()
        for segment in players[which].dialogue(worlds[which].chain(rng, "warm")):
            ids += lang.ids(segment.words)
            weights += [1.0 if segment.action else READ] * len(segment.words)
        yield [*ids, lang.id_of[EOS]], [*weights, 1.0]


def drills(lang: Language, seed: int, hardness: Callable[[], float]) -> Iterator[Example]:
    """Reading alone: a few passages, siblings and namesakes among them, then statements of what they say.

    `hardness` in [0, 1): 1 to 4 passages; 1: two to four. Where a fact is not among the passages the answer is "no".
    """
    rng = random.Random(f"drills {seed}")

    def first() -> str:
        return f"na{rng.randrange(FIRST_NAMES)}"

    def last() -> str:
        return f"nb{rng.randrange(LAST_NAMES)}"

    while True:
        hard = hardness()
        count = 1 + min(3, int(hard * 4)) if hard < 1 else rng.randrange(2, 5)
        a, b = first(), last()
        kind = rng.randrange(4)
        relations = [f"rel{r}" for r in range(kind * RELATIONS_A_KIND, (kind + 1) * RELATIONS_A_KIND)]
        chosen = rng.sample(relations, count)
        passages = []
        for relation in chosen:
            name = (a, b) if rng.random() < 0.6 else rng.choice(((a, last()), (first(), b)))
            passages.append((*name, relation if rng.random() < 0.8 else chosen[0], first(), last()))
        ids = lang.ids(
            ["<information>", *(w for p in passages for w in (*p, PASSAGE_END)), "</information>", "<think>"]
        )
        weights = [0.0] * len(ids)
        heads = [passage[:3] for passage in passages]
        for passage in rng.sample(passages, count):
            if heads.count(passage[:3]) == 1:
                ids += lang.ids(["so", *passage])
                weights += [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
        absent = (a, b, rng.choice(relations))
        if absent not in heads:
            ids += lang.ids(["so", *absent, "no"])
            weights += [0.0, 0.0, 0.0, 0.0, 1.0]
        yield ids, weights
