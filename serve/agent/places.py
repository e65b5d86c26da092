"""Places for questions under way: whoever finds none is sent away at once, with a time to come back."""

from __future__ import annotations

from types import TracebackType

from serve.agent.news import Busy


class Places:
    """As many as `count`; `with places.take():` has one until the block ends, however it ends."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.taken = 0

    def take(self) -> Place:
        """A place. `Busy` where all are taken."""
        if self.taken >= self._count:
            raise Busy(f"{self._count} questions are being answered, and there is no place for another: try again soon")
        return Place(self)


class Place:
    """One place, given back once."""

    def __init__(self, places: Places) -> None:
        self._places: Places | None = places
        places.taken += 1

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Gives it back; a second time does nothing."""
        if self._places is not None:
            self._places.taken -= 1
            self._places = None

    def __del__(self) -> None:  # of a stream that its client has left before anyone began to read it
        self.leave()
