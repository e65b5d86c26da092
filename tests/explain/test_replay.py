"""Stored groups credited again: by the method that trained as it trained, by others with rewards of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibadv.explain.page import arithmetic
from calibadv.explain.replay import credited, methods_for
from calibadv.methods import METHODS, make_method
from calibadv.methods.reasons import turn_means
from calibadv.tracking.groups import StoredStep
from calibadv.types import Document, Group, Question
from tests.build import group, trajectory

QUESTION = Question("test/q", "who?", ("Ada",), gold_doc_ids=("a", "b"))
DOCUMENTS = {name: Document(name, name.upper(), "by Ada" if name == "a" else "x") for name in "abcde"}


def stored(*groups: Group, method: str = "calibadv", **params: object) -> StoredStep:
    credit = make_method(method, params).advantages
    return StoredStep(4, method, params, groups, tuple(turn_means(credit(g), g) for g in groups), DOCUMENTS)


def two_rollouts() -> Group:
    """A right one that found a and b; a wrong one that found a, c, d and then e."""
    right = trajectory(1.0, [2, 2], [["a", "b"]])
    wrong = trajectory(0.0, [2, 2, 4], [["a", "c", "d"], ["e"]])
    return replace(group(right, wrong), question=QUESTION)


def test_the_method_that_trained_comes_first_with_its_parameters() -> None:
    step = stored(two_rollouts(), lam=2.0)
    methods = methods_for(step)
    assert list(methods) == ["calibadv", *(name for name in METHODS if name != "calibadv")]
    (columns,) = credited(step, methods)
    for row, trained in zip(columns["calibadv"].credit, step.trained[0], strict=True):
        assert row == pytest.approx(trained)
    assert columns["calibadv"].credit[0][1] == pytest.approx(2 * 2 * 2**-0.5, rel=1e-4)  # lam 2, N / P 2
    assert list(methods_for(step, ["grpo", "calibadv"])) == ["calibadv", "grpo"]
    with pytest.raises(ValueError, match="unknown method 'grp'"):
        methods_for(step, ["grp"])


def test_others_have_turn_rewards_of_their_own_and_the_trained_one_those_of_the_run() -> None:
    told = two_rollouts()
    given = replace(told, trajectories=tuple(
        replace(t, turns=tuple(replace(turn, reward=9.0) for turn in t.turns)) for t in told.trajectories
    ))  # fmt: skip
    (columns,) = credited(stored(given), methods_for(stored(given), ["mt_grpo", "criticsearch"]))
    # The first search of each found a text with the answer (0.5) and returned something (0.2 a call).
    assert [t.turns[0].reward for t in columns["mt_grpo"].group.trajectories] == pytest.approx([0.7, 0.7])
    # New gold in the right one's search; a again is new to the wrong one's; e is no gold.
    labels = [[turn.reward for turn in t.turns[:-1]] for t in columns["criticsearch"].group.trajectories]
    assert labels == [[1.0], [1.0, -1.0]]
    (kept,) = credited(stored(given, method="mt_grpo"), methods_for(stored(given, method="mt_grpo"), ["grpo"]))
    assert {turn.reward for t in kept["mt_grpo"].group.trajectories for turn in t.turns} == {9.0}


def test_a_critic_s_credit_is_whitened_over_the_step_and_its_reasons_with_it() -> None:
    step = stored(two_rollouts(), two_rollouts())
    columns = credited(step, methods_for(step, ["ppo"]))
    assert columns[0]["ppo"].note == "a critic that says 0: its values are not stored"
    values = np.repeat([columns[0]["ppo"].credit[0][0], columns[0]["ppo"].credit[1][0]], [4, 8])  # tokens of each
    assert values.mean() == pytest.approx(0, abs=1e-6)
    for column in (columns[0]["ppo"], columns[1]["ppo"]):
        assert column.reasons is not None
        for row, reasons_S in zip(column.credit, column.reasons, strict=True):
            assert [reasons.total for reasons in reasons_S] == pytest.approx(row, abs=1e-5)


def test_a_critic_that_trained_has_its_stored_credit_and_its_values_are_one_term() -> None:
    step = replace(stored(two_rollouts(), method="ppo"), trained=([[0.5, 0.25], [-1.0, -0.5, 0.0]],))
    (columns,) = credited(step, methods_for(step, ["grpo"]))
    ppo = columns["ppo"]
    assert ppo.credit == [[0.5, 0.25], [-1.0, -0.5, 0.0]]
    assert ppo.note.startswith("as it trained")
    assert ppo.reasons is not None
    for row, reasons_S in zip(ppo.credit, ppo.reasons, strict=True):
        assert [reasons.total for reasons in reasons_S] == pytest.approx(row)
        assert {(reasons.addends[-1][0].name, reasons.note) for reasons in reasons_S} == {("the critic's values", "")}


def test_reasons_of_another_credit_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled() -> object:
        grpo = make_method("grpo", {})
        return replace(grpo, name="doubled", advantages=lambda g: [2 * row for row in grpo.advantages(g)])

    monkeypatch.setitem(METHODS, "doubled", doubled)
    step = stored(two_rollouts())
    (columns,) = credited(step, methods_for(step, ["doubled", "grpo"]))
    assert columns["doubled"].reasons is None
    assert columns["grpo"].reasons is not None


def test_stepsearch_has_its_rewards_where_all_gold_passages_were_retrieved() -> None:
    (columns,) = credited(stored(two_rollouts()), methods_for(stored(two_rollouts()), ["stepsearch"]))
    right, wrong = columns["stepsearch"].group.trajectories
    # Both find a, which is the first passage; the text of the second, b, is no word of two letters. e adds nothing.
    assert [turn.reward for turn in right.turns[:-1]] == pytest.approx([0.5])
    assert [turn.reward for turn in wrong.turns[:-1]] == pytest.approx([0.5, 0.0])
    assert columns["stepsearch"].note == "a critic that says 0: its values are not stored"
    half = replace(two_rollouts(), question=replace(QUESTION, gold_doc_ids=("a", "nowhere")))
    (columns,) = credited(stored(half), methods_for(stored(half), ["stepsearch"]))
    assert columns["stepsearch"].group.trajectories[0].turns[0].reward == 0
    assert columns["stepsearch"].note.endswith("what the gold passages say is not known")


def test_a_method_of_the_users_that_kept_our_name_stands_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from calibadv.methods.calibadv import calibadv\n\ndef method():\n    return calibadv(lam=2.0)\n"
    )
    step = replace(stored(two_rollouts()), method=f"{tmp_path / 'mine.py'}:method")
    assert list(methods_for(step)) == [step.method, *METHODS]


def test_what_the_others_cannot_know_is_said() -> None:
    step = stored(replace(two_rollouts(), question=Question("q", "who?", ("Ada",))))
    (columns,) = credited(step, methods_for(step))
    assert columns["criticsearch"].note == "no gold passage of the question is known"
    assert columns["stepsearch"].note.endswith("no rewards at searches: what the gold passages say is not known")
    assert columns["tree_grpo"].note == "all rollouts are of one tree: twice GRPO"
    assert columns["grpo"].note == ""


def test_arithmetic_reads_as_it_multiplies_out() -> None:
    (columns,) = credited(stored(two_rollouts()), methods_for(stored(two_rollouts()), ["grpo"]))
    assert columns["calibadv"].reasons is not None
    assert arithmetic(columns["calibadv"].reasons[1][0]) == (
        "-0.50 [reward - mean: 0.00 - 0.50] × 1.41 [1 / deviation: of 2: 1.00 0.00] × "
        "0.67 [1 - c: 1 of 3 documents silver, by correct rollout 1] = -0.471"
    )


def test_the_scale_of_the_step_is_told_where_the_whole_step_is_stored() -> None:
    far, near = two_rollouts(), replace(two_rollouts(), question=replace(QUESTION, id="test/near"))
    near = replace(near, trajectories=tuple(replace(t, reward=0.2 * t.reward) for t in near.trajectories))
    deviation = ((4 * 0.25 / 2 + 0.01 * 2) / 3) ** 0.5  # of 0.5, -0.5, 0.1 and -0.1
    step = stored(far, near, method="grpo", baseline="reinforce++")
    columns = credited(step, methods_for(step, ["grpo"]))
    for column, expected in zip(columns, (0.5, 0.1), strict=True):
        assert column["grpo"].credit[0][0] == pytest.approx(expected / deviation, rel=1e-4)
        assert column["grpo"].reasons is not None
        reasons = column["grpo"].reasons[0][0]
        assert reasons.total == pytest.approx(expected / deviation, rel=1e-4)
        assert [term.name for term in reasons.addends[0]] == ["reward - mean", "1 / deviation of the step"]
