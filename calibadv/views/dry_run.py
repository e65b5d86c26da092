"""The page of a dry run: the configuration as TOML, what follows from it, and the memory of each GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from calibadv.config import Config, to_toml
from calibadv.memory.advice import remedy
from calibadv.memory.items import GIB, USABLE, gib
from calibadv.memory.parts import NODE_GPUS, WIKI_18, Part, passages
from calibadv.memory.plan import ModelSizes, Plan

CARDS_GB = (80, 96)
ONE_CARD_GB = (24, 80)  # for a run that takes no more than one GPU


def plan_page(config: Config, plan: Plan) -> RenderableType:
    """What `train.py --dry-run` prints."""
    table = Table(title="What follows from it", title_justify="left", show_header=False)
    for row in (*_counts(config, plan), *_sizes(config, plan)):
        table.add_row(*row)
    return Group(Syntax(to_toml(config), "toml", background_color="default"), table, *memory_tables(config, plan))


def _counts(config: Config, plan: Plan) -> Iterator[tuple[str, str]]:
    rollout, learner = config.rollout, config.learner
    questions = f"{config.data.questions_per_step:,} questions x {rollout.samples}"
    yield "rollouts a step", f"{questions} = {plan.step_rollouts:,}"
    passes = f", {learner.passes} passes" if learner.passes > 1 else ""
    yield "updates a step", f"{plan.step_updates:,} of {learner.minibatch_rollouts:,} rollouts{passes}"
    yield "updates in all", f"{plan.run_updates:,}"
    yield "rollouts in all", f"{plan.run_rollouts:,}"
    yield "sampled tokens a step", f"at most {plan.step_sampled_tokens:,}"
    yield "tokens a step", f"at most {plan.step_tokens:,} with prompts and documents"
    yield "searches a step", f"at most {plan.step_searches:,}"
    rests = f"0 for {plan.rest_updates:,} updates, then " if plan.rest_updates else ""
    rises = f"up to {learner.lr:g} over {plan.warmup_updates:,} updates, then " if plan.warmup_updates else ""
    falls = f"{learner.lr:g} to {learner.lr_final:g}, cosine over {plan.cosine_updates:,} updates"
    yield "learning rate", f"{rests}{rises}{falls}"
    learners = max(learner.learners, 1)
    yield "processes", f"{rollout.engines} engines, {learners} learners, {config.search.replicas} retrievers"
    if plan.gpus:
        nodes = math.ceil(plan.gpus / NODE_GPUS)
        where = f"one node of {NODE_GPUS}" if nodes == 1 else f"{nodes} nodes of {NODE_GPUS}"
        yield "GPUs", f"{plan.gpus:g} of {where}"


def _sizes(config: Config, plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.model is None:
        yield "memory", f"not known: {plan.unknown}"
        return
    sizes, learner, rollout = plan.model, config.learner, config.rollout
    adapters = learner.lora_rank > 0
    weights = f"{sizes.weights_bytes / GIB:.2f} GiB"
    yield "parameters", f"{sizes.parameters / 1e6:,.1f} M"
    yield "weights an engine", f"{weights} {config.model.dtype}"
    yield "KV cache a full rollout", f"{sizes.kv_cache_bytes / GIB:.3f} GiB"
    if adapters:
        yield "parameters that train", f"{sizes.trained_parameters / 1e6:,.1f} M, of adapters"
    kept = "fp32 weights, adapters with gradients and AdamW" if adapters else "fp32 weights, gradients, AdamW"
    kept += ", of policy and critic" if sizes.trained_parameters > sizes.parameters else ""
    yield "learner state", f"{sizes.state_bytes / GIB:.2f} GiB ({kept})"
    if learner.zero:
        yield "state each learner holds", f"{sizes.held_bytes / GIB:.2f} GiB (ZeRO-{learner.zero})"
    how = f"{learner.dtype}, {'' if learner.gradient_checkpointing else 'no '}gradient checkpointing"
    yield "activations a micro-batch", f"about {sizes.activations_bytes / GIB:.2f} GiB ({how})"
    yield "logits and the head", f"{sizes.head_bytes / GIB:.2f} GiB (a chunk's logits, never those of a whole batch)"
    yield "weights published a step", f"{weights} to each of {rollout.engines} engines"
    if every := config.checkpoint.every:
        most = config.checkpoint.keep_last + config.checkpoint.keep_best
        seconds = f"{sizes.saved_bytes / 1e9:,.1f} s where all learners together write 1 GB a second"
        yield "a checkpoint", f"{gib(sizes.saved_bytes)}, {most} are kept; every {every} steps training waits {seconds}"


def memory_tables(config: Config, plan: Plan) -> list[RenderableType]:
    """Each part's GPU by item, against the cards, and what to change. Empty on CPUs."""
    if not plan.parts:
        return [Text(f"The memory of each GPU is not known: {plan.unknown}")] if plan.unknown and plan.gpus else []
    table = Table(title="Memory of each GPU", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("GPUs")
    table.add_column("what each holds")
    table.add_column("GiB", justify="right")
    cards = CARDS_GB if plan.gpus > 1 else ONE_CARD_GB
    for card in cards:
        table.add_column(f"card of {card} GB", min_width=22)
    for part in plan.parts:
        for row, item in enumerate(part.items):
            table.add_row(
                f"{part.gpus:g} x {part.name}" if row == 0 else "", item.name, f"{item.size_bytes / GIB:,.1f}"
            )
        verdicts = (_verdict(part, card) for card in cards)
        table.add_row("", "together", f"{part.total_bytes / GIB:,.1f}", *verdicts, end_section=True)
    assert plan.model is not None
    return [table, Text("\n".join([*_footnotes(config), *_remedies(config, plan.parts, plan.model, cards)]))]


def _verdict(part: Part, card_gb: float) -> str:
    spare = part.spare_bytes(card_gb)
    if spare < 0:
        return f"does not fit:\n{gib(-spare)} short"
    if part.rollout_bytes:
        return f"fits: {part.full_rollouts(card_gb):,} full rollouts"
    return f"fits: {gib(spare)} left"


def _remedies(config: Config, parts: tuple[Part, ...], sizes: ModelSizes, cards_gb: Sequence[int]) -> list[str]:
    cards: dict[str, list[str]] = {}
    for part in parts:
        for card in cards_gb:
            if part.spare_bytes(card) < 0:
                words = f"{part.name}: {remedy(part, config, sizes.shape, card)}."
                cards.setdefault(words, []).append(f"{card} GB")
    return [f"To fit {' and '.join(named)}, {words}" for words, named in cards.items()]


def _footnotes(config: Config) -> Iterator[str]:
    yield (
        f"A card of N GB is counted as N x 10^9 bytes, of which {USABLE:.0%} can be used; an engine takes "
        f"{config.rollout.gpu_memory_utilization:.0%} of that."
    )
    yield "Sizes follow from shapes; activations and what libraries keep are estimates (docs/memory.md)."
    search = config.search
    if max(search.num_gpus, search.shard_gpus) > 0 and search.device.startswith("cuda") and search.retriever != "bm25":
        corpus, number = config.data.corpus, passages(config)
        yield (
            f"The index is left out: how many passages {corpus} has is known once it is a corpus store."
            if number is None
            else f"The corpus has {number:,} passages, "
            + ("as its manifest says." if Path(corpus).is_dir() else f"going by the name {WIKI_18}.")
        )
