"""What to change where a part of the run does not fit a card: the first change that the arithmetic says is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from calibadv.config import Config
from calibadv.memory.parts import Part, parts_of
from calibadv.memory.shape import ModelShape

Changes = Mapping[str, object]
"""Values by the keys of their section.key."""

_MOST_LEARNERS = 64


def advice(part: Part, config: Config, shape: ModelShape, card_gb: float) -> Changes:
    """The first changes with which the part fits; empty where none of those that are tried is enough.

    A learner is first advised to save, then to share its state; search to have a GPU for each replica, then a smaller
    index; an engine to be spread over more GPUs, or beside a learner to take a smaller share.
    """
    names = (part.name,) if part.name in ("engine", "learner") else ("search", "index shard")
    for changes in _tried(part.name, config):
        changed = [other for other in parts_of(with_changes(config, changes), shape) if other.name in names]
        if all(other.spare_bytes(card_gb) >= 0 for other in changed):
            return {key: value for key, value in changes.items() if value != ""}
    return {}


def remedy(part: Part, config: Config, shape: ModelShape, card_gb: float) -> str:
    """The advice in words; where nothing that is tried is enough, what else there is to do."""
    if changes := advice(part, config, shape, card_gb):
        settings = " and ".join(f"{key} = {_toml(value)}" for key, value in changes.items())
        return f"build and serve the index as {settings}" if "search.index" in changes else f"set {settings}"
    if part.name == "engine":
        if config.rollout.colocated:
            return "set rollout.placement = 'separate', or share the learners' state with learner.zero = 3"
        return "lower rollout.max_tokens, or raise rollout.gpu_memory_utilization"
    if part.name == "learner":
        if config.method.made.critic is not None:
            return "lower rollout.max_tokens or take a smaller model: learner.zero does not share a critic's state"
        return "lower rollout.max_tokens: a single rollout of full length is too much for a learner on such a card"
    return "set search.device = 'cpu', or take a smaller encoder"


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else repr(value)


def _tried(name: str, config: Config) -> Iterator[Changes]:
    if name == "engine":
        yield from _of_engine(config)
    elif name == "learner":
        yield from _of_learner(config)
    else:
        if config.search.num_gpus < 1:
            yield {"search.num_gpus": 1.0}
        # The kind of a ready index is its own: the advice is to build another.
        yield from ({"search.index": kind, "search.faiss_index": ""} for kind in ("fp16", "ivfpq"))


def _of_engine(config: Config) -> Iterator[Changes]:
    if config.rollout.colocated:
        yield from ({"rollout.gpu_memory_utilization": percent / 100} for percent in range(90, 10, -5))
    else:
        yield from ({"rollout.tensor_parallel": n} for n in (2, 4, 8) if n > config.rollout.tensor_parallel)


def _of_learner(config: Config) -> Iterator[Changes]:
    learner = config.learner
    savings: dict[str, object] = {}
    if not learner.gradient_checkpointing:
        savings["learner.gradient_checkpointing"] = True
    if learner.dtype == "float32":
        savings["learner.dtype"] = "bfloat16"
    if learner.token_budget > config.rollout.max_tokens:
        savings["learner.token_budget"] = config.rollout.max_tokens
    yield from ({key: value} for key, value in savings.items())
    yield savings
    if config.method.made.critic is not None:
        return  # a critic's state is not shared
    if learner.zero < 3:
        savings = savings | {"learner.zero": 3}
    most = config.rollout.engines if config.rollout.colocated else _MOST_LEARNERS
    for learners in range(max(2, learner.learners), most + 1):
        yield savings | {"learner.learners": learners}


def with_changes(config: Config, changes: Changes) -> Config:
    """The configuration with the values, which are not validated."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config
