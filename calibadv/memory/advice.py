"""What to change where a part of the run does not fit a card: the first change that the arithmetic says is enough."""

from __future__ import annotations

from collections.abc import Iterator

from calibadv.config import Config
from calibadv.memory.plan import Part, engine_part, learner_part, search_parts
from calibadv.memory.shape import ModelShape
from calibadv.methods import make_method

_MOST_LEARNERS = 64
_SHARES = [percent / 100 for percent in range(90, 10, -5)]  # of a card that an engine may be given


def advice(part: Part, config: Config, shape: ModelShape, card_gb: float) -> str:
    """What would make the part fit; for a learner first its own settings, then sharing its state with others."""
    if part.name == "engine":
        return _for_engine(config, shape, card_gb)
    if part.name == "learner":
        return _for_learner(config, shape, card_gb)
    return _for_search(config, card_gb)


def _for_engine(config: Config, shape: ModelShape, card_gb: float) -> str:
    if config.rollout.placement == "colocated":
        for share in _SHARES:
            if engine_part(_with(config, "rollout", gpu_memory_utilization=share), shape).spare(card_gb) >= 0:
                return f"set rollout.gpu_memory_utilization = {share:g}, for the learner beside it keeps its state"
        return "set rollout.placement = 'separate', or share the learners' state with learner.zero = 3"
    for ranks in (2, 4, 8):
        wider = _with(config, "rollout", tensor_parallel=ranks)
        if ranks > config.rollout.tensor_parallel and engine_part(wider, shape).spare(card_gb) >= 0:
            return f"set rollout.tensor_parallel = {ranks}"
    return "lower rollout.max_tokens, or raise rollout.gpu_memory_utilization"


def _for_learner(config: Config, shape: ModelShape, card_gb: float) -> str:
    thriftiest, said = config, []
    for key, value in _savings(config):
        said.append(f"learner.{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}")
        if learner_part(_with(config, "learner", **{key: value}), shape).spare(card_gb) >= 0:
            return f"set {said[-1]}"
        thriftiest = _with(thriftiest, "learner", **{key: value})
    if learner_part(thriftiest, shape).spare(card_gb) >= 0:
        return f"set {' and '.join(said)}"
    if make_method(config.method.name, config.method.params).critic is not None:
        return "lower rollout.max_tokens or take a smaller model: learner.zero does not share a critic's state"
    if config.learner.zero < 3:
        said.append("learner.zero = 3")
    most = config.rollout.engines if config.rollout.placement == "colocated" else _MOST_LEARNERS
    for learners in range(max(2, config.learner.learners), most + 1):
        if learner_part(_with(thriftiest, "learner", zero=3, learners=learners), shape).spare(card_gb) >= 0:
            return f"set {' and '.join([*said, f'learner.learners = {learners}'])}"
    return "lower rollout.max_tokens: a single rollout of full length is too much for a learner on such a card"


def _savings(config: Config) -> Iterator[tuple[str, object]]:
    learner = config.learner
    if not learner.gradient_checkpointing:
        yield "gradient_checkpointing", True
    if learner.dtype == "float32":
        yield "dtype", "bfloat16"
    if learner.token_budget > config.rollout.max_tokens:
        yield "token_budget", config.rollout.max_tokens


def _for_search(config: Config, card_gb: float) -> str:
    if config.search.num_gpus < 1:
        alone = _with(config, "search", num_gpus=1.0)
        if all(part.spare(card_gb) >= 0 for part in search_parts(alone)):
            return "set search.num_gpus = 1, a GPU for each replica"
    for kind in ("fp16", "ivfpq"):
        # The kind of a ready index is its own: the advice is to build another.
        smaller = _with(config, "search", index=kind, faiss_index="")
        if all(part.spare(card_gb) >= 0 for part in search_parts(smaller)):
            return f"build and serve the index as search.index = {kind!r}"
    return "set search.device = 'cpu', or take a smaller encoder"


def _with(config: Config, section: str, **values: object) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})
