"""Who of a run's engines is there, serves what, is silent, sleeps or has died: the board's book, without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibadv.cluster.processes import EngineProcess
from calibadv.rollout.tally import Counts, Step

SILENT_S = 15.0  # without a beat: worth telling whoever waits


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The engines of a run at one moment, by name."""

    serving: dict[str, int] = field(default_factory=dict)  # the version that each last took
    starting: tuple[str, ...] = ()  # enlisted, and not up yet
    silent_s: dict[str, float] = field(default_factory=dict)  # seconds since the last beat, where that is long ago
    awake: tuple[str, ...] = ()  # colocated ones that hold their memory
    deaths: int = 0

    def __str__(self) -> str:
        versions: dict[int, list[str]] = {}
        for name, version in sorted(self.serving.items()):
            versions.setdefault(version, []).append(name)
        said = [f"version {version} is served by {', '.join(names)}" for version, names in sorted(versions.items())]
        said += [f"starting: {', '.join(self.starting)}"] if self.starting else []
        silent = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in self.silent_s.items())
        said += [f"silent: {silent}"] if silent else []
        said += [f"awake: {', '.join(self.awake)}"] if self.awake else []
        said += [f"engines that died so far: {self.deaths}"] if self.deaths else []
        return "; ".join(said or ["no engine is there"])


@dataclass(slots=True)
class _Engine:
    process: EngineProcess
    stream: str
    beat_s: float | None = None  # of the last one; None while it starts
    awake: bool = False  # colocated: it holds memory of its GPU, or may
    slept: bool = False  # it has started and gone to sleep at least once
    counts: Mapping[Step, Counts] = field(default_factory=dict)  # of its rollouts, as it last said


class RollCall:
    """Engines from enlistment to death. Times are given by the caller, in seconds of one clock."""

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}
        self._versions: dict[str, int] = {}
        self.deaths: list[str] = []  # what was said of each, in order
        self.in_a_row = 0  # deaths since the last version was published

    def join(self, stream: str, process: EngineProcess) -> None:
        """A process of `stream` is starting. An earlier one of its actor that said nothing has died."""
        for name, engine in list(self._engines.items()):
            if engine.process.actor == process.actor and name != process.name:
                self.lose(name, "its process ended")
        self._engines[process.name] = _Engine(process, stream)

    def leave(self, stream: str) -> None:
        """The engines of `stream` have done their work."""
        self._engines = {name: engine for name, engine in self._engines.items() if engine.stream != stream}

    def lose(self, name: str, words: str) -> None:
        """The engine has died."""
        self._engines.pop(name, None)
        self._versions.pop(name, None)
        self.deaths.append(f"{name}: {words}")
        self.in_a_row += 1

    def beat(self, name: str, now_s: float, counts: Mapping[Step, Counts] | None = None) -> None:
        """The engine is up and moves, and has done so much. Of one that was given up nothing is heard."""
        if (engine := self._engines.get(name)) is not None:
            engine.beat_s = now_s
            engine.counts = counts or {}

    def counts(self, step: Step) -> Counts:
        """What the engines that are there have done of a step; what died with an engine is done again."""
        total = Counts()
        for engine in self._engines.values():
            total = total.plus(engine.counts.get(step, Counts()))
        return total

    def excuse(self, now_s: float) -> None:
        """No silence so far counts: the listener itself stood still."""
        for engine in self._engines.values():
            engine.beat_s = None if engine.beat_s is None else now_s

    def silent(self, now_s: float) -> list[EngineProcess]:
        """Those whose silence is longer than their own limit."""
        return [
            engine.process
            for engine in self._engines.values()
            if engine.beat_s is not None and now_s - engine.beat_s > engine.process.timeout_s
        ]

    def serve(self, name: str, version: int) -> None:
        """The engine has taken `version`."""
        self._versions[name] = version

    def wake(self, name: str) -> None:
        """The engine takes its memory."""
        if (engine := self._engines.get(name)) is not None:
            engine.awake = True

    def sleep(self, name: str) -> None:
        """The engine has given its memory back."""
        if (engine := self._engines.get(name)) is not None:
            engine.awake, engine.slept = False, True

    def is_awake(self, name: str) -> bool:
        return (engine := self._engines.get(name)) is not None and engine.awake

    def awake(self) -> list[EngineProcess]:
        """Those that hold memory, or may."""
        return [engine.process for engine in self._engines.values() if engine.awake]

    def settled(self) -> int:
        """How many have started and sleep."""
        return sum(engine.slept and not engine.awake for engine in self._engines.values())

    def versions(self) -> dict[str, int]:
        """The version that each engine last took."""
        return dict(self._versions)

    def report(self, now_s: float) -> EngineReport:
        """All of it, for people."""
        engines = self._engines
        silence = {name: now_s - engine.beat_s for name, engine in engines.items() if engine.beat_s is not None}
        return EngineReport(
            serving=self.versions(),
            starting=tuple(name for name, engine in engines.items() if engine.beat_s is None),
            silent_s={name: seconds for name, seconds in silence.items() if seconds > SILENT_S},
            awake=tuple(process.name for process in self.awake()),
            deaths=len(self.deaths),
        )
