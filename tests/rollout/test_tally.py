"""Counts of what rollouts have done, by hand."""

from __future__ import annotations

from calibadv.cluster.engine_registry import EngineRegistry
from calibadv.cluster.processes import EngineProcess
from calibadv.rollout.tally import Counts, Tally


def test_counts_grow_by_phase_and_step_and_old_steps_are_forgotten() -> None:
    tally = Tally()
    tally.add(("eval", 0), turns=2, rollouts=1)
    tally.add(("eval", 0), searches=1, turns=1)
    assert tally.now() == {("eval", 0): Counts(rollouts=1, searches=1, turns=3)}
    for step in range(4):
        tally.add(("train", step), turns=1)
    assert list(tally.now()) == [("train", step) for step in range(4)]


def test_a_step_is_what_all_engines_did_and_what_died_with_one_is_done_again() -> None:
    registry = EngineRegistry()
    for name in ("a", "b"):
        registry.register("stream", EngineProcess(name, name, "node", 1, 0.0, 60.0))
    registry.heartbeat("a", 1.0, {("train", 3): Counts(5, 7, 20)})
    registry.heartbeat("b", 1.0, {("train", 3): Counts(1, 2, 4), ("train", 2): Counts(9, 9, 9)})
    assert registry.counts(("train", 3)) == Counts(6, 9, 24)
    assert registry.counts(("eval", 3)) == Counts()
    registry.lose("a", "it died")
    assert registry.counts(("train", 3)) == Counts(1, 2, 4)
