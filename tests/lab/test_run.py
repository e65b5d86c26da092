"""Laboratory runs: every method, resume, and what a folder may hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from calibadv.lab.laboratory import Laboratory
from calibadv.lab.run import DONE, METRICS, read_metrics, run_in
from calibadv.lab.settings import LabRun
from calibadv.lab.tasks import TASKS, TaskName
from calibadv.lab.warm_start import load_start
from calibadv.methods import METHODS, Method
from calibadv.rewards.own_turns import OwnTurns
from calibadv.tracking.folder_lock import FolderLock, FolderLocked
from calibadv.types import Document, Question, Trajectory

ROOT = Path(__file__).parents[2]
TINY = {"questions": 3, "samples": 3, "updates": 2, "lr": 1e-3, "evaluation_questions": 5, "evaluate_every": 10}
STEPS = 2


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method: str, tmp_path: Path) -> None:
    steps = 10
    ended = run_in(tmp_path / "run", LabRun(method=method, steps=steps, **TINY))
    rows = read_metrics(tmp_path / "run")
    assert (ended.steps, ended.reason) == (steps, "complete")
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert any(row["reward/mean"] > 0 for row in rows)
    assert any(row["learner/grad_norm"] > 0 for row in rows if "learner/grad_norm" in row)
    assert {"eval/f1", "eval/format", "eval/searches"} <= rows[-1].keys()
    assert all(0 <= row["policy/tail_mass"] <= 1 and row["policy/entropy"] > 0 for row in rows)


LOSSES: dict[str, dict[str, Any]] = {
    "gspo": {"baseline": "rloo", "clip": 3e-4, "clip_high": 4e-4, "divisor": "sequences"},
    "gspo_turn": {"baseline": "maxrl", "clip": 3e-3, "dual_clip": 3.0},
    "cispo": {"baseline": "dr_grpo", "clip": 1.0, "clip_high": 0.28, "divisor": "constant", "divisor_tokens": 100},
    "sapo": {"baseline": "reinforce++", "divisor": "sequences"},
    "ppo": {"keep": "credited", "token_mask": (0.98, 1.02), "rollout_mask": (0.999, 1.001)},
}


@pytest.mark.parametrize("surrogate", LOSSES)
def test_every_surrogate_and_baseline_trains(surrogate: str, tmp_path: Path) -> None:
    given = {"surrogate": surrogate, **LOSSES[surrogate]}
    run = LabRun(
        method="calibadv",
        params={"baseline": given.pop("baseline", "grpo")},
        keep=given.pop("keep", "all"),
        steps=STEPS,
        sampler_dtype="bfloat16",
        old_logprobs="recompute",
        clip=given.pop("clip", 0.2),
        loss=given,
        **{**TINY, "evaluation_questions": 1},
    )
    assert run_in(tmp_path, run).reason == "complete"
    rows = read_metrics(tmp_path)
    assert any(row.get("learner/grad_norm", 0) > 0 for row in rows)
    assert ("learner/masked_share" in rows[0]) == (surrogate == "ppo")
    assert ("learner/kept_share" in rows[0]) == (surrogate == "ppo")
    if surrogate == "ppo":  # bf16 weights sampled: some tokens are off, and not all
        assert 0 < max(row.get("learner/masked_share", 0) for row in rows) < 1


class OwnTurnsRun(LabRun):
    """A run whose turns a user's function scores."""

    def make_method(self) -> Method:
        return replace(super().make_method(), score_turns=lambda: OwnTurns(found_something), gold=None)


def found_something(_question: Question, rollout: Trajectory, documents: Mapping[str, Document]) -> list[float]:
    assert all(id in documents for id in rollout.doc_ids)
    return [float(len(turn.doc_ids) > 0) for turn in rollout.turns]


def test_rewards_of_turns_of_one_s_own_train(tmp_path: Path) -> None:
    given: dict[str, Any] = {**TINY, "evaluation_questions": 1, "params": {"soft_pen": "turns"}}
    run = OwnTurnsRun(method="calibadv", steps=STEPS, **given)
    assert run_in(tmp_path, run).reason == "complete"
    assert any(row.get("learner/grad_norm", 0) > 0 for row in read_metrics(tmp_path))


def test_the_sampler_s_log_probs_are_the_learner_s() -> None:
    lab = Laboratory(LabRun(steps=1, **TINY))
    row = lab.step(1)
    assert row["sync/logprob_diff_max"] < 1e-4


def test_log_probs_of_another_temperature_are_the_learner_s_too_and_of_flatter_or_sharper_words() -> None:
    ppl = []
    for at in (1.0, 0.5):
        row = Laboratory(LabRun(steps=1, temperature=0.5, logprobs_at=at, **TINY)).step(1)
        assert row["sync/logprob_diff_max"] < 1e-4
        ppl.append(row["policy/ppl"])
    assert ppl[1] < ppl[0]  # the same rollouts: what was sampled at 0.5 is likelier at 0.5


def test_recomputed_log_probs_of_rounded_weights_differ() -> None:
    row = Laboratory(LabRun(steps=1, sampler_dtype="bfloat16", old_logprobs="recompute", **TINY)).step(1)
    assert 1e-5 < row["sync/logprob_diff_mean"] < 0.1


def test_stale_weights_sample_as_the_start_did() -> None:
    fresh, stale = (Laboratory(LabRun(steps=3, staleness=s, **TINY)) for s in (0, 1))
    fresh_rows, stale_rows = ([lab.step(n) for n in (1, 2)] for lab in (fresh, stale))
    assert without_times(fresh_rows)[0] == without_times(stale_rows)[0]  # both sampled by the start
    assert fresh_rows[1]["sync/logprob_diff_max"] < 1e-4
    assert stale_rows[1]["sync/logprob_diff_max"] > 1e-3  # the learner has moved on, the sampler has not


def test_a_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    run = LabRun(method="lld", steps=4, staleness=1, **TINY)
    run_in(tmp_path / "straight", run, checkpoint_every=2)

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "broken", run, stop, checkpoint_every=2)
    assert len(read_metrics(tmp_path / "broken")) == 3
    with (tmp_path / "broken" / METRICS).open("a") as file:
        file.write('{"step": 4, "rew')  # as a crash leaves it
    made = []
    run_in(tmp_path / "broken", run, lambda row: made.append(row["step"]))
    assert made == [3, 4]  # from the checkpoint of step 2
    assert without_times(read_metrics(tmp_path / "broken")) == without_times(read_metrics(tmp_path / "straight"))


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    run = LabRun(steps=1, **TINY)
    first = run_in(tmp_path, run)
    assert run_in(tmp_path, run, lambda _: pytest.fail("made again")) == first
    assert json.loads((tmp_path / DONE).read_text())["steps"] == 1


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run_in(tmp_path, LabRun(steps=1, **TINY))
    with pytest.raises(ValueError, match="run of other settings"):
        run_in(tmp_path, LabRun(steps=2, **TINY))


def test_a_run_that_another_process_makes_is_refused(tmp_path: Path) -> None:
    run = LabRun(steps=1, **TINY)
    other = FolderLock(tmp_path, "")
    with pytest.raises(FolderLocked, match=r"is being written by process .*: wait for it, or end it"):
        run_in(tmp_path, run)
    other.close()
    assert run_in(tmp_path, run).steps == 1


def test_a_run_without_any_reward_ends(tmp_path: Path) -> None:
    ended = run_in(tmp_path, LabRun(steps=30, stop_after_zeros=2, max_turn_tokens=8, **TINY))  # no turn fits
    assert (ended.steps, ended.reason) == (2, "zeros")
    assert read_metrics(tmp_path)[-1]["eval/f1"] == 0  # the last step is evaluated, whichever it is


def test_top_p_never_samples_what_is_unlikely() -> None:
    # The start writes words of the tail, each of them unlikely; a nucleus of a half holds none.
    lab = Laboratory(LabRun(steps=4, top_p=0.5, lr=1e-9, questions=8, evaluation_questions=1))
    rows = [lab.step(n) for n in range(1, 5)]
    assert all(row["language/garbled"] == 0 for row in rows)
    assert all(row["policy/tail_mass"] > 0 for row in rows)


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_start_has_the_form_and_room_to_learn(task: TaskName) -> None:
    lab = Laboratory(LabRun(task=task, evaluation_questions=100))
    assert torch.isfinite(load_start(TASKS[task].start).embed.weight).all()
    figures = lab.evaluate()
    assert figures["eval/format"] > 0.75
    assert 0.15 < figures["eval/f1"] < 0.6


def test_a_recorded_run_begins_as_it_did() -> None:
    """The plain world, start, sampler and learner are those of the runs in docs/lab: nothing of them may change."""
    table = pd.read_parquet(ROOT / "docs" / "lab" / "mismatch.parquet")
    rows = table[(table["cell"] == "negatives x 1, top_p 0.95") & (table["seed"] == 0) & (table["step"] <= 2)]
    lab = Laboratory(LabRun.stored(rows["settings"].iloc[0]))
    for recorded in rows.sort_values("step").to_dict("records"):
        row = lab.step(int(recorded["step"]))
        # Another processor may round one token in ten thousand to its neighbour.
        for name in ("reward/mean", "policy/entropy", "policy/tail_mass", "rollout/action_tokens"):
            assert row[name] == pytest.approx(recorded[name], rel=0.05), name
