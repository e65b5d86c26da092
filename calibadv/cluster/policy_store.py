"""The newest policy, which the learner publishes and engines wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from calibadv.cluster.packed import PackedWeights


@dataclass(frozen=True, slots=True)
class Published:
    """The newest policy: its version and its weights."""

    version: int
    weights: PackedWeights


class PolicyStore:
    """Holds the newest weights' references, never the weights.

    Only references to the newest version are kept, so that older chunks are freed when no engine reads them.
    """

    def __init__(self) -> None:
        self.latest: Published | None = None  # None before the first
        self._changed = asyncio.Condition()

    @property
    def version(self) -> int:
        """The newest, -1 before the first."""
        return -1 if self.latest is None else self.latest.version

    async def publish(self, version: int, weights: PackedWeights) -> None:
        """Make `version` the newest and wake all who wait for it. Versions only grow."""
        if version <= self.version:
            raise ValueError(f"version {version} is not newer than the published {self.version}")
        async with self._changed:
            self.latest = Published(version, weights)
            self._changed.notify_all()

    async def wait(self, version: int) -> int:
        """The newest version, as soon as it is `version` or later."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.version >= version)
        return self.version
