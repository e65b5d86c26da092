"""What a run is made of: kept in its checkpoints, so that no run goes on as another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from calibadv.config import decides
from calibadv.refusals import short_repr
from calibadv.section import Decides

_MAY_CHANGE = (Decides.CONTENT, Decides.MEANS, Decides.PLACE)  # of content there are digests
_WHY = {"run.steps": " (the cosine of the learning rate ends there: it may change where lr_final equals lr)"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A run's settings under dotted keys, and digests of the files that they name."""

    settings: Mapping[str, Any]
    digests: Mapping[str, str]  # train, test, corpus, model, and settings that name the user's code

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Identity:
        """The identity that `to_dict` wrote."""
        return Identity(dict(values["settings"]), dict(values["digests"]))


def differences(then: Identity, now: Identity, defaults: Mapping[str, Any]) -> list[str]:
    """Every difference that makes going on wrong, in words with both values; [] if there is none.

    `defaults`: the value of a setting that one side does not know, because another release wrote it.
    Two may change in one way: `search.url` to another address, and `run.steps` where the learning rate is constant (a
    cosine is stretched over all steps, so that with another number the steps already made would have been other ones).
    """
    settings = [
        changed(key, old, new) + _WHY.get(key, "")
        for key in dict.fromkeys([*then.settings, *now.settings])
        if decides(key) not in _MAY_CHANGE
        and (old := then.settings.get(key, defaults.get(key))) != (new := now.settings.get(key, defaults.get(key)))
        and not (key == "search.url" and old and new)
        and not (key == "run.steps" and _constant_rate(then) and _constant_rate(now))
    ]
    files = [
        f"the {name} files hold something else than before (digest {str(then.digests.get(name))[:12]}, now "
        f"{str(now.digests.get(name))[:12]})"
        for name in dict.fromkeys([*then.digests, *now.digests])
        if then.digests.get(name) != now.digests.get(name)
    ]
    return settings + files


def _constant_rate(identity: Identity) -> bool:
    return bool(identity.settings.get("learner.lr") == identity.settings.get("learner.lr_final"))


def changed(key: str, old: object, new: object) -> str:
    """What a setting was and is, in words; None: it is not set."""
    was, now = ("not set" if value is None else short_repr(value) for value in (old, new))
    return f"{key} was {was}, now {now}"
