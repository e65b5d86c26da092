"""Trains the pocket policy on demonstrations: facts are drawn afresh all along, so that it must copy, not memorise."""

from __future__ import annotations

import itertools
import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from calibadv.pocket.chains import ChainSampler
from calibadv.pocket.demonstrations import Demonstrator, ErrorRates, Step, SyntheticSearch, reading_exercise
from calibadv.pocket.initial_weights import start_with_copying_heads
from calibadv.pocket.tokenizer import POCKET_TEMPLATE, build_tokenizer
from calibadv.pocket.world import Half, build_world
from calibadv.rollout.dialogues.tags import TagsDialogue

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The recipe of the shipped policy. Equal values on one machine give equal losses."""

    seed: int = 0
    steps: int = 700
    rows: int = 16  # dialogues a step
    lr_matrix: float = 0.02  # Muon, hidden matrices
    lr_other: float = 0.004  # AdamW, embeddings, norms and biases
    warmup_steps: int = 20
    context_weight: float = 0.1  # of a prompt's or observation's token, a sampled one counting 1
    dialogues_a_world: int = 192
    drill_share: float = 0.6  # of the rows before `drill_until`: one search with many readings
    drill_until: float = 0.4
    namesakes_from: float = 0.4  # progress from which the other documents share a word of the name
    shown_more: tuple[float, float] = (0.08, 0.2)  # progress at which observations grow to two and to three documents
    pool: int = 8  # steps whose dialogues are sorted by length together: less padding
    errors: ErrorRates = field(default_factory=ErrorRates)


def warm_start_pocket(folder: Path, recipe: WarmStart, threads: int = 1) -> list[float]:
    """The losses of a whole warm start; writes the policy and its tokenizer into `folder`."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    tokenizer = build_tokenizer()
    policy = build_policy(tokenizer, recipe.seed)
    log.info("%.2f M parameters, %d words, %d steps", policy.num_parameters() / 1e6, len(tokenizer), recipe.steps)
    start = time.perf_counter()
    losses = train(policy, TagsDialogue(tokenizer, template=POCKET_TEMPLATE), recipe)
    folder.mkdir(parents=True, exist_ok=True)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"seed": recipe.seed, "steps": recipe.steps, "losses": [round(loss, 5) for loss in losses]}
    (folder / "warm_start.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    log.info("wrote %s after %.0f s; last loss %.4f nats", folder, time.perf_counter() - start, losses[-1])
    return losses


def build_policy(tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2ForCausalLM:
    """The untrained policy, about 2 M parameters; head size 32 is the smallest that vLLM's CPU attention takes."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    policy = Qwen2ForCausalLM(config)
    start_with_copying_heads(policy)
    return policy


@dataclass(frozen=True, slots=True)
class Row:
    """One dialogue as token ids, with the weight of each as a prediction target."""

    ids: list[int]
    weights: list[float]


def encode_dialogue(dialogue: TagsDialogue, question: str, steps: list[Step], context_weight: float) -> Row:
    """Ids exactly as a rollout strings them together: prompt, action and observation of each turn, then the end."""
    ids = dialogue.prompt_ids(question).tolist()
    weights = [context_weight] * len(ids)
    for step in steps:
        action = dialogue.tokenizer.encode(step.action, add_special_tokens=False)
        observation = dialogue.observation_ids(step.documents, 1024).tolist() if step.documents else []
        ids += action + observation
        weights += [1.0] * len(action) + [context_weight] * len(observation)
    return Row([*ids, dialogue.tokenizer.eos_token_id], [*weights, 1.0])


def rows(dialogue: TagsDialogue, recipe: WarmStart) -> Iterator[Row]:
    """Endless demonstrations, from one fresh world after another."""
    rng = random.Random(f"warm start {recipe.seed}")
    for first in itertools.count(step=recipe.dialogues_a_world):
        # Short observations first: copying is learned sooner where there is less to look through.
        progress = first / (recipe.rows * recipe.steps)
        shown = 1 + sum(progress >= share for share in recipe.shown_more)
        world = build_world(rng.getrandbits(48))
        sampler = ChainSampler(world, Half.TRAIN, rng)
        searcher = SyntheticSearch(world, rng, shown, 0.9 if progress >= recipe.namesakes_from else 0.0)
        demonstrator = Demonstrator(searcher, rng, recipe.errors)
        for _ in range(recipe.dialogues_a_world):
            chain = sampler.draw()
            if rng.random() < recipe.drill_share and progress < recipe.drill_until:
                steps = reading_exercise(searcher, rng, chain)
            else:
                steps = demonstrator.dialogue(chain)
            yield encode_dialogue(dialogue, chain.text, steps, recipe.context_weight)


def batches(source: Iterator[Row], recipe: WarmStart, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids [B, T], weights [B, T]) of dialogues of similar length, padded on the right with weight 0."""
    rng = random.Random(f"batches {recipe.seed}")
    while True:
        pool = sorted((next(source) for _ in range(recipe.pool * recipe.rows)), key=lambda row: len(row.ids))
        chunks = [pool[i : i + recipe.rows] for i in range(0, len(pool), recipe.rows)]
        rng.shuffle(chunks)
        for chunk in chunks:
            width = max(len(row.ids) for row in chunk)
            ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in chunk])
            yield ids, torch.tensor([row.weights + [0.0] * (width - len(row.weights)) for row in chunk])


def weighted_loss(model: Qwen2ForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the predicted tokens, each with its weight.

    Padding is on the right and the model is causal: no attention mask is needed.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    targets = weights[:, 1:].flatten()
    return (losses * targets).sum() / targets.sum()


def train(
    model: Qwen2ForCausalLM,
    dialogue: TagsDialogue,
    recipe: WarmStart,
    steps: int | None = None,
) -> list[float]:
    """The loss of each step; trains `model` in place, for the first `steps` steps of the recipe if given."""
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    other = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=recipe.lr_matrix, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(other, lr=recipe.lr_other, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = (recipe.lr_matrix, recipe.lr_other)
    losses: list[float] = []
    pad = dialogue.tokenizer.pad_token_id
    for step, (ids, weights) in enumerate(batches(rows(dialogue, recipe), recipe, int(pad))):
        if step == (recipe.steps if steps is None else steps):
            return losses
        factor = min(1.0, (step + 1) / recipe.warmup_steps, 1.5 * (1 - step / recipe.steps))
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
        loss = weighted_loss(model, ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 25 == 24:
            log.info("step %d of %d: loss %.4f nats", step + 1, recipe.steps, sum(losses[-25:]) / 25)
    raise AssertionError("batches are endless")
