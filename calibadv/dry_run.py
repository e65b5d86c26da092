"""What a configuration comes to, before anything is started: rollouts, updates, tokens and memory."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table

from calibadv.config import POCKET, Config
from calibadv.config_toml import to_toml
from calibadv.data.pocket import policy_path

GIB = 2**30
ADAM_BYTES = 16  # a parameter in the learner: fp32 weight, gradient and two moments


def plan_table(config: Config) -> RenderableType:
    """The resolved configuration as TOML, and the consequences as a table."""
    table = Table(title="What follows from it", title_justify="left", show_header=False)
    for name, value in consequences(config).items():
        table.add_row(name, value)
    return Group(Syntax(to_toml(config), "toml", background_color="default"), table)


def consequences(config: Config) -> dict[str, str]:
    """What the run will do and hold, by name. Token counts are upper bounds; memory needs a local model folder."""
    rollout, learner = config.rollout, config.learner
    rollouts, updates = config.rollouts_per_step, config.updates_per_step
    turns = rollout.max_turns + 1
    facts = {
        "rollouts a step": f"{config.data.questions_per_step:,} questions x {rollout.samples} = {rollouts:,}",
        "updates a step": f"{updates:,} of {learner.minibatch_rollouts:,} rollouts",
        "updates in all": f"{config.run.steps * updates:,}",
        "rollouts in all": f"{config.run.steps * rollouts:,}",
        "sampled tokens a step": f"at most {rollouts * min(turns * rollout.max_turn_tokens, rollout.max_tokens):,}",
        "tokens a step": f"at most {rollouts * rollout.max_tokens:,} with prompts and documents",
        "searches a step": f"at most {rollouts * rollout.max_turns:,}",
        "learning rate": f"{learner.lr:g} to {learner.lr_final:g}, cosine over {config.run.steps * updates:,} updates",
        "processes": f"{rollout.engines} engines, {max(learner.learners, 1)} learners, "
        f"{config.search.replicas} retrievers",
    }
    shape = _model_shape(config.model.path)
    if shape is None:
        return facts | {"memory": f"not known: {config.model.path} is not a folder on this machine"}
    parameters, hidden, layers, vocabulary, kv_width = shape
    item = 2 if config.model.dtype == "bfloat16" else 4
    kv_token = 2 * layers * kv_width * item
    return facts | {
        "parameters": f"{parameters / 1e6:,.1f} M",
        "weights an engine": f"{parameters * item / GIB:.2f} GiB {config.model.dtype}",
        "KV cache a full rollout": f"{kv_token * rollout.max_tokens / GIB:.3f} GiB",
        "learner state": f"{parameters * ADAM_BYTES / GIB:.2f} GiB (fp32 weights, gradients, AdamW)",
        # 34 bytes a token, layer and hidden unit: Korthikanti et al. 2022, eq. 2 without the attention matrix.
        "activations a micro-batch": f"about {34 * layers * hidden * learner.token_budget / GIB:.2f} GiB "
        "(bfloat16, no gradient checkpointing)",
        "logits in a chunk": f"{1024 * vocabulary * 4 / GIB:.2f} GiB (never those of a whole batch)",
        "weights published a step": f"{parameters * item / GIB:.2f} GiB to each of {rollout.engines} engines",
    }


def _model_shape(path: str) -> tuple[int, int, int, int, int] | None:
    """(parameters, hidden, layers, vocabulary, width of keys) from the folder's config.json, or None."""
    file = (policy_path() if path == POCKET else Path(path)) / "config.json"
    if not file.is_file():
        return None
    c = json.loads(file.read_text(encoding="utf-8"))
    hidden, layers, vocabulary = c["hidden_size"], c["num_hidden_layers"], c["vocab_size"]
    head = c.get("head_dim") or hidden // c["num_attention_heads"]
    kv_width = head * c.get("num_key_value_heads", c["num_attention_heads"])
    attention = 2 * hidden * head * c["num_attention_heads"] + 2 * hidden * kv_width
    embeddings = vocabulary * hidden * (1 if c.get("tie_word_embeddings") else 2)
    return layers * (attention + 3 * hidden * c["intermediate_size"]) + embeddings, hidden, layers, vocabulary, kv_width
