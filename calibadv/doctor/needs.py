"""What a recipe needs of its machines, in numbers: those of the dry run, read back from its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibadv.config import Config
from calibadv.memory.dry_run import consequences

PROCESS_GIB = 1.0  # of an engine, a retriever or a learner besides what it holds: torch alone is most of it
BASE_GIB = 2.0  # driver, Ray, Serve, MLflow


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes in GiB, of one engine and of one learner where both are of one size."""

    parameters: int
    weights_gib: float  # of an engine, in the engines' dtype
    rollout_gib: float  # KV cache of one rollout of the greatest length
    state_gib: float  # learner: weights, gradients, moments
    work_gib: float  # learner: activations of a micro-batch and a chunk of logits
    held_gib: float | None = None  # of the state, by each of several learners that share it; None: all

    @property
    def learner_gib(self) -> float:
        """All that a learner holds in an update."""
        return (self.state_gib if self.held_gib is None else self.held_gib) + self.work_gib


def needs_of(config: Config, model: Path) -> Needs:
    """The needs of a recipe whose model is described in `model`/config.json. ValueError where they cannot be told."""
    here = config.model_copy(update={"model": config.model.model_copy(update={"path": str(model)})})
    facts = consequences(here)
    return Needs(
        parameters=round(_number(facts, "parameters", "M") * 1e6),
        weights_gib=_number(facts, "weights an engine", "GiB"),
        rollout_gib=_number(facts, "KV cache a full rollout", "GiB"),
        state_gib=_number(facts, "learner state", "GiB"),
        work_gib=_number(facts, "activations a micro-batch", "GiB") + _number(facts, "logits in a chunk", "GiB"),
        held_gib=_number(facts, "state each learner holds", "GiB") if config.learner.zero else None,
    )


def ram_gib(config: Config, needs: Needs) -> float:
    """Memory of the machine that everything takes when it runs on one: what is on a GPU is held there."""
    engine = PROCESS_GIB + (0 if config.cluster.gpus_per_engine else needs.weights_gib + config.rollout.kv_cache_gb)
    learner = PROCESS_GIB + (0 if config.learner.gpus_per_learner else needs.learner_gib)
    retrievers = 0 if config.search.url else config.search.replicas * PROCESS_GIB
    published = 2 * needs.weights_gib  # the version that is read and the one that is written
    return (
        config.rollout.engines * engine + max(config.learner.learners, 1) * learner + retrievers + published + BASE_GIB
    )


def _number(facts: Mapping[str, str], name: str, unit: str) -> float:
    match = re.search(rf"([\d,]+(?:\.\d+)?) {unit}\b", facts.get(name, ""))
    if match is None:
        raise ValueError(f"the dry run says no {name!r}: {facts.get('memory', 'its words have changed')}")
    return float(match.group(1).replace(",", ""))
