"""Who of a run's engines is there, serves what, is silent or has died. Without Ray, and without a clock of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from calibadv.cluster.processes import EngineProcess
from calibadv.rollout.tally import Counts, Step

SILENT_S = 15.0  # without a heartbeat: worth telling whoever waits


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The engines of a run at one moment, by name."""

    serving: dict[str, int] = field(default_factory=dict)  # the version that each last took
    starting: tuple[str, ...] = ()  # registered, and not up yet
    silent_s: dict[str, float] = field(default_factory=dict)  # seconds since the last heartbeat, where that is long ago
    awake: tuple[str, ...] = ()  # colocated ones that hold their memory
    deaths: tuple[str, ...] = ()  # what was said of each that has died so far, in order

    def __str__(self) -> str:
        versions: dict[int, list[str]] = {}
        for name, version in sorted(self.serving.items()):
            versions.setdefault(version, []).append(name)
        said = [f"version {version} is served by {', '.join(names)}" for version, names in sorted(versions.items())]
        said += [f"starting: {', '.join(self.starting)}"] if self.starting else []
        silent = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in self.silent_s.items())
        said += [f"silent: {silent}"] if silent else []
        said += [f"awake: {', '.join(self.awake)}"] if self.awake else []
        said += [f"engines that died so far: {len(self.deaths)}"] if self.deaths else []
        return "; ".join(said or ["no engine is there"])


@dataclass(slots=True)
class _Engine:
    process: EngineProcess
    stream: str
    heard_s: float | None = None  # time of the last heartbeat; None while it starts
    counts: Mapping[Step, Counts] = field(default_factory=dict)  # of its rollouts, as it last said


class EngineRegistry:
    """Engines from their registration to their death. Times are given by the caller, in seconds of one clock."""

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}
        self._versions: dict[str, int] = {}
        self.deaths: list[str] = []  # what was said of each, in order
        self.deaths_in_a_row = 0  # since the last version was published

    def register(self, stream: str, process: EngineProcess) -> None:
        """A process of `stream` is starting."""
        self._engines[process.name] = _Engine(process, stream)

    def replaced_by(self, process: EngineProcess) -> list[str]:
        """Earlier processes of the same actor, which have died if they said nothing."""
        return [
            name
            for name, engine in self._engines.items()
            if engine.process.actor == process.actor and name != process.name
        ]

    def processes(self, names: Iterable[str]) -> list[EngineProcess]:
        """The processes of those of the engines that are there."""
        return [self._engines[name].process for name in names if name in self._engines]

    def end(self, stream: str) -> list[str]:
        """The engines of `stream`, which have done their work and are forgotten."""
        ended = [name for name, engine in self._engines.items() if engine.stream == stream]
        for name in ended:
            del self._engines[name]
        return ended

    def lose(self, name: str, words: str) -> None:
        """The engine has died. Each of its rows says so: it is counted once."""
        if self._engines.pop(name, None) is None:
            return
        self._versions.pop(name, None)
        self.deaths.append(f"{name}: {words}")
        self.deaths_in_a_row += 1

    def heartbeat(self, name: str, now_s: float, counts: Mapping[Step, Counts] | None = None) -> None:
        """The engine is up and moves, and has done so much. Of one that was given up nothing is heard."""
        if (engine := self._engines.get(name)) is not None:
            engine.heard_s = now_s
            engine.counts = counts or {}

    def counts(self, step: Step) -> Counts:
        """What the engines that are there have done of a step; what died with an engine is done again."""
        total = Counts()
        for engine in self._engines.values():
            total = total.plus(engine.counts.get(step, Counts()))
        return total

    def restart_silence(self, now_s: float) -> None:
        """No silence so far counts: the listener itself stood still."""
        for engine in self._engines.values():
            engine.heard_s = None if engine.heard_s is None else now_s

    def silent(self, now_s: float) -> list[EngineProcess]:
        """Those whose silence is longer than their own limit."""
        return [
            engine.process
            for engine in self._engines.values()
            if engine.heard_s is not None and now_s - engine.heard_s > engine.process.timeout_s
        ]

    def serve(self, name: str, version: int) -> None:
        """The engine has taken `version`."""
        self._versions[name] = version

    def report(self, now_s: float, awake: tuple[str, ...] = ()) -> EngineReport:
        """All of it, and who is `awake`, for people."""
        engines = self._engines
        silence = {name: now_s - engine.heard_s for name, engine in engines.items() if engine.heard_s is not None}
        return EngineReport(
            serving=dict(self._versions),
            starting=tuple(name for name, engine in engines.items() if engine.heard_s is None),
            silent_s={name: seconds for name, seconds in silence.items() if seconds > SILENT_S},
            awake=awake,
            deaths=tuple(self.deaths),
        )
