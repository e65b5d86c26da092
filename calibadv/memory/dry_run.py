"""What a configuration comes to, before anything is started: rollouts, updates, tokens, a step's time, GPU memory."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from calibadv.config import POCKET, Config
from calibadv.config.toml import to_toml
from calibadv.losses import CHUNK_TOKENS
from calibadv.memory.advice import advice
from calibadv.memory.items import GIB, USABLE, activation_bytes, gib, kv_token_bytes, state_items
from calibadv.memory.plan import NODE_GPUS, Part, gpus_wanted, parts_of, passages
from calibadv.memory.shape import ModelShape, adapter_parameters, model_shape
from calibadv.pocket import policy_path
from calibadv.step_time.estimate import estimate, work_of
from calibadv.step_time.work import ASSUMED

CARDS_GB = (80, 96)


def plan_table(config: Config) -> RenderableType:
    """The resolved configuration as TOML, its consequences as a table, and for GPUs one of their memory."""
    table = Table(title="What follows from it", title_justify="left", show_header=False)
    for name, value in consequences(config).items():
        table.add_row(name, value)
    return Group(Syntax(to_toml(config), "toml", background_color="default"), table, *memory_tables(config))


def _rate_words(config: Config) -> str:
    learner, updates = config.learner, config.updates_per_step
    first = (learner.critic_only_steps + learner.warmup_steps) * updates
    rises = (
        f"up to {learner.lr:g} over {learner.warmup_steps * updates:,} updates, then " if learner.warmup_steps else ""
    )
    rests = f"0 for {learner.critic_only_steps * updates:,} updates, then " if learner.critic_only_steps else ""
    over = f"cosine over {config.run.steps * updates - first:,} updates"
    return f"{rests}{rises}{learner.lr:g} to {learner.lr_final:g}, {over}"


def consequences(config: Config) -> dict[str, str]:
    """What the run will do and hold, by name. Token counts are upper bounds; memory needs the model's shape."""
    rollout, learner = config.rollout, config.learner
    rollouts, updates = config.rollouts_per_step, config.updates_per_step
    turns = rollout.max_turns + 1
    facts = {
        "rollouts a step": f"{config.data.questions_per_step:,} questions x {rollout.samples} = {rollouts:,}",
        "updates a step": f"{updates:,} of {learner.minibatch_rollouts:,} rollouts"
        + (f", {learner.passes} passes" if learner.passes > 1 else ""),
        "updates in all": f"{config.run.steps * updates:,}",
        "rollouts in all": f"{config.run.steps * rollouts:,}",
        "sampled tokens a step": f"at most {rollouts * min(turns * rollout.max_turn_tokens, rollout.max_tokens):,}",
        "tokens a step": f"at most {rollouts * rollout.max_tokens:,} with prompts and documents",
        "searches a step": f"at most {rollouts * rollout.max_turns:,}",
        "learning rate": _rate_words(config),
        "processes": f"{rollout.engines} engines, {max(learner.learners, 1)} learners, "
        f"{config.search.replicas} retrievers",
    }
    if (gpus := gpus_wanted(config)) > 0:
        nodes = math.ceil(gpus / NODE_GPUS)
        facts["GPUs"] = f"{gpus:g} of " + (
            f"one node of {NODE_GPUS}" if nodes == 1 else f"{nodes} nodes of {NODE_GPUS}"
        )
    try:
        shape = _shape(config)
        adapters = adapter_parameters(shape, learner.lora_rank, learner.lora_targets)
    except ValueError as error:
        return facts | {"memory": f"not known: {error}"}
    item = 2 if config.model.dtype == "bfloat16" else 4
    weights = f"{shape.parameters * item / GIB:.2f} GiB"
    activations = activation_bytes(
        shape,
        learner.token_budget,
        autocast=learner.dtype == "bfloat16",
        checkpointing=learner.gradient_checkpointing,
        adapters=adapters > 0,
    )
    trained, frozen = (adapters, shape.parameters) if adapters else (shape.parameters, 0)
    state = sum(state_items(trained, frozen=frozen).values())
    held = sum(state_items(trained, frozen=frozen, zero=learner.zero, learners=learner.learners).values())
    kept = "fp32 weights, adapters with gradients and AdamW" if adapters else "fp32 weights, gradients, AdamW"
    how = f"{learner.dtype}, {'' if learner.gradient_checkpointing else 'no '}gradient checkpointing"
    return facts | {
        "parameters": f"{shape.parameters / 1e6:,.1f} M",
        "weights an engine": f"{weights} {config.model.dtype}",
        "KV cache a full rollout": f"{kv_token_bytes(shape, item) * rollout.max_tokens / GIB:.3f} GiB",
        **({"parameters that train": f"{adapters / 1e6:,.1f} M, of adapters"} if adapters else {}),
        "learner state": f"{state / GIB:.2f} GiB ({kept})",
        **({"state each learner holds": f"{held / GIB:.2f} GiB (ZeRO-{learner.zero})"} if learner.zero else {}),
        "activations a micro-batch": f"about {activations / GIB:.2f} GiB ({how})",
        "logits in a chunk": f"{CHUNK_TOKENS * shape.vocabulary * 4 / GIB:.2f} GiB (never those of a whole batch)",
        "weights published a step": f"{weights} to each of {rollout.engines} engines",
        **_step_time(config, shape),
    }


def _step_time(config: Config, shape: ModelShape) -> dict[str, str]:
    """The modelled step on GPUs of the kind that is named, with what it takes for granted. Empty where none is."""
    if (step := estimate(config, shape)) is None:
        return {}
    work, beside = work_of(config), ", beside each other" if step.overlapped else ""
    return {
        "time of a step": f"about {step.seconds:,.0f} s on {config.cluster.gpu} (a model, measured nowhere): rollouts "
        f"{step.rollout.seconds:,.0f} and learning {step.learn.seconds:,.0f}{beside}, publication "
        f"{step.sync.seconds:,.0f}; longest is {step.bound}",
        "taken for granted": f"{work.turns:g} turns of {work.action_tokens:g} tokens, prompt {work.prompt_tokens:g}, "
        f"observation {work.observation_tokens:g}, {ASSUMED.learner_mfu:.0%} of the peak in learners; the rest is in "
        "docs/scaling.md",
    }


def memory_tables(config: Config) -> list[RenderableType]:
    """Each part's GPU by item, against cards of 80 and 96 GB, and what to change. Empty on CPUs and unknown shapes."""
    try:
        shape = _shape(config)
        parts = parts_of(config, shape)
    except ValueError as error:
        unknown = gpus_wanted(config) > 0
        return [Text(f"The memory of each GPU is not known: {error}")] if unknown else []
    if not parts:
        return []
    table = Table(title="Memory of each GPU", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("GPUs")
    table.add_column("what each holds")
    table.add_column("GiB", justify="right")
    for card in CARDS_GB:
        table.add_column(f"card of {card} GB", min_width=22)
    for part in parts:
        for row, (name, size) in enumerate(part.items.items()):
            table.add_row(f"{part.gpus:g} x {part.name}" if row == 0 else "", name, f"{size / GIB:,.1f}", "", "")
        verdicts = (_verdict(part, card) for card in CARDS_GB)
        table.add_row("", "together", f"{part.total / GIB:,.1f}", *verdicts, end_section=True)
    return [table, Text("\n".join([*_footnotes(config), *_remedies(parts, config, shape)]))]


def _remedies(parts: list[Part], config: Config, shape: ModelShape) -> list[str]:
    cards: dict[str, list[str]] = {}
    for part in parts:
        for card in CARDS_GB:
            if part.spare(card) < 0:
                remedy = f"{advice(part, config, shape, card)}."
                cards.setdefault(f"{part.name}: {remedy}", []).append(f"{card} GB")
    return [f"To fit {' and '.join(sizes)}, {remedy}" for remedy, sizes in cards.items()]


def _verdict(part: Part, card_gb: float) -> str:
    spare = part.spare(card_gb)
    if spare < 0:
        return f"does not fit:\n{gib(-spare)} short"
    if part.rollout_bytes:
        return f"fits: {part.full_rollouts(card_gb):,} full rollouts"
    return f"fits: {gib(spare)} left"


def _footnotes(config: Config) -> list[str]:
    notes = [
        f"A card of N GB is counted as N x 10^9 bytes, of which {USABLE:.0%} can be used; an engine takes "
        f"{config.rollout.gpu_memory_utilization:.0%} of that.",
        "Sizes follow from shapes; activations and what libraries keep are estimates (docs/memory.md).",
    ]
    search = config.search
    if max(search.num_gpus, search.shard_gpus) > 0 and search.device.startswith("cuda") and search.retriever != "bm25":
        known = passages(config)
        if known is None:
            notes.append(
                f"The index is left out: how many passages {config.data.corpus} has is known once it is a corpus store."
            )
        else:
            notes.append(f"The corpus has {known[0]:,} passages, {known[1]}.")
    return notes


def _shape(config: Config) -> ModelShape:
    return model_shape(str(policy_path()) if config.model.path == POCKET else config.model.path)
