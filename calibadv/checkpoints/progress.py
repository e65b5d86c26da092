"""How far a run is, beside its learners' state: what the driver must know to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from calibadv.checkpoints.state_files import decode, encode


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluated version so far, and its F1 in [0, 1]."""

    version: int
    f1: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A run after `version` training steps, each of which is written down."""

    version: int = 0
    evaluations: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # version -> eval metrics
    clipped: Mapping[int, int] = field(default_factory=dict)  # token id -> how often the clip acted on it
    sentinel: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None  # a rollout to show at the end, as `RolloutRecord.to_dict`
    best: Best | None = None
    wall_s: float = 0.0  # of every attempt so far

    def stepped(self, version: int, clipped: Mapping[int, int], example: Mapping[str, Any] | None) -> Progress:
        """After one step more, which led to `version`; `example` None: the earlier one stays."""
        total = Counter(self.clipped) + Counter(clipped)
        return replace(self, version=version, clipped=total, example=example or self.example)

    def evaluated(self, version: int, metrics: Mapping[str, float]) -> Progress:
        """With the evaluation of `version`."""
        return replace(self, evaluations={**self.evaluations, version: metrics})

    def to_json(self) -> Any:
        """As JSON-ready values; `from_json` is its inverse, to the last bit."""
        values = {name.name: getattr(self, name.name) for name in fields(self)}
        plain, tensors = encode({**values, "best": None if self.best is None else [self.best.version, self.best.f1]})
        assert not tensors
        return plain

    @staticmethod
    def from_json(plain: Any) -> Progress:
        """The progress that `to_json` wrote. ValueError for anything else."""
        try:
            values = decode(plain, {})
            best = values.pop("best")
            return Progress(**values, best=None if best is None else Best(*best))
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"these are no values of a run's progress: {error!r}") from error
