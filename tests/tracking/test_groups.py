"""Groups that are stored are read back as what credit is assigned on."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibadv.methods import METHODS, make_method
from calibadv.methods.reasons import turn_means
from calibadv.tracking.groups import GroupsError, StoredStep, forget_groups, read_groups, stored_steps, write_groups
from calibadv.types import Document, Question, TokenUnit
from tests.methods.test_reasons import drawn_group

QUESTION = Question(
    "test/ü", "Who?\u2028", ("Ada", "A. L."), ("who is",), ("d1",), ("text",), {"hops": "2"}, ("T",), TokenUnit.UNSPACED
)


def stored(step: int, seeds: range = range(6)) -> StoredStep:
    groups = tuple(replace(drawn_group(seed), question=replace(QUESTION, id=f"test/{seed}")) for seed in seeds)
    found = {doc for group in groups for t in group.trajectories for turn in t.turns for doc in turn.doc_ids}
    documents = {doc: Document(doc, f"Title {doc}", "text", 0.5) for doc in sorted(found)}
    trained = tuple(turn_means(make_method("grpo", {}).advantages(group), group) for group in groups)
    return StoredStep(step, "calibadv", {"lam": 2.0}, groups, trained, documents)


def test_what_is_read_back_gets_the_same_credit_from_every_method(tmp_path: Path) -> None:
    written = stored(7)
    write_groups(tmp_path / "groups", written, limit_mb=1)
    (read,) = read_groups(tmp_path)
    assert (read.step, read.method, read.params, read.documents) == (7, "calibadv", {"lam": 2.0}, written.documents)
    for before, after, trained, was in zip(written.groups, read.groups, read.trained, written.trained, strict=True):
        assert after.question == before.question
        for one, other in zip(after.trajectories, before.trajectories, strict=True):
            assert [len(turn.action_ids) for turn in one.turns] == [len(turn.action_ids) for turn in other.turns]
            assert [turn.logprobs.sum() for turn in one.turns] == pytest.approx([t.logprobs.sum() for t in other.turns])
            assert [(t.kind, t.query, t.text, t.reward) for t in one.turns] == [
                (t.kind, t.query, t.text, t.reward) for t in other.turns
            ]
        for name in METHODS:
            method = make_method(name, {})
            for row, expected in zip(method.advantages(after), method.advantages(before), strict=True):
                assert np.array_equal(row, expected)
        for row_S, was_S in zip(trained, was, strict=True):
            assert row_S == pytest.approx(was_S, abs=1e-6)


def test_steps_are_read_in_order_or_as_asked_and_forgotten_from_one_on(tmp_path: Path) -> None:
    for step in (12, 3, 5):
        write_groups(tmp_path / "groups", stored(step, range(1)), limit_mb=1)
    assert [step.step for step in read_groups(tmp_path)] == [3, 5, 12]
    assert [step.step for step in read_groups(tmp_path, [12])] == [12]
    with pytest.raises(GroupsError, match=r"has no groups of step 4; it has 3, 5, 12"):
        list(read_groups(tmp_path, [4]))
    forget_groups(tmp_path / "groups", 5)
    assert list(stored_steps(tmp_path / "groups")) == [3]


def test_a_folder_above_its_limit_drops_every_second_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_groups(tmp_path, stored(0), limit_mb=1)
    size = next(iter(stored_steps(tmp_path).values())).stat().st_size
    for step in range(1, 5):
        write_groups(tmp_path, stored(step), limit_mb=4.5 * size / 1e6)
    assert list(stored_steps(tmp_path)) == [0, 2, 4]
    assert "every second step of it is dropped" in caplog.text


def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(GroupsError, match=r"has no stored groups: it is no run, or was made with"):
        list(read_groups(tmp_path))
    write_groups(tmp_path / "groups", stored(0), limit_mb=1)
    (file,) = stored_steps(tmp_path / "groups").values()
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content.replace(b'"format": 1', b'"format": 9')))
    with pytest.raises(GroupsError, match=r"is of format 9, this version reads 1"):
        list(read_groups(tmp_path))
    file.write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(GroupsError, match=r"cannot be read"):
        list(read_groups(tmp_path))


def test_a_full_disk_is_said_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "groups").write_text("a file where the folder should be")
    write_groups(tmp_path / "groups", stored(0), limit_mb=1)
    assert "the groups of step 0 cannot be written" in caplog.text
