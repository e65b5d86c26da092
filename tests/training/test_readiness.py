"""When a policy is said to be unable to learn, and the command that is named against it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from calibadv.config import SentinelConfig
from calibadv.training.readiness import ENOUGH_GROUPS, Readiness, Unready, teach
from calibadv.types import Group
from tests.build import group, trajectory
from workflows import warm_start

GOOD, BAD = (group(trajectory(0.0, [2], format_reward=reward)) for reward in (1.0, 0.0))


def watch(**settings: object) -> Readiness:
    return Readiness(SentinelConfig.model_validate(settings), lambda: "Teach it.")


def answers(good: int, bad: int) -> list[Group]:
    return [GOOD] * good + [BAD] * bad


def test_five_in_a_hundred_are_enough_and_fewer_are_not() -> None:
    watch().evaluated(answers(5, 95))
    with pytest.raises(Unready, match="4 of 100 rollouts are well-formed, at least 5%"):
        watch().evaluated(answers(4, 96))
    with pytest.raises(Unready, match="5 of 100"):
        watch(format_floor=0.06).evaluated(answers(5, 95))


def test_the_first_look_ends_a_run_for_none_alone() -> None:
    watch().look(answers(1, 63))  # the whole evaluation may have more
    with pytest.raises(Unready, match=r"0 of 64 .* Teach it"):
        watch().look(answers(0, 64))


def test_without_a_floor_or_an_answer_nothing_is_said() -> None:
    watch(format_floor=0.0).look(answers(0, 64))
    watch(format_floor=0.0).evaluated(answers(0, 64))
    watch().look([])
    watch().evaluated([])  # every search has failed


@pytest.mark.parametrize(
    ("zero_share", "well_formed", "reward", "groups", "said"),
    [
        (0.999, 0.0, 0.0, 512, None),
        (1.0, 0.0, 0.0, 1, "does not write the format.*Teach it"),
        (1.0, 1.0, 0.0, ENOUGH_GROUPS, "0.00 in the mean.*Teach it"),
        (1.0, 1.0, 1.0, ENOUGH_GROUPS, "1.00 in the mean.*take harder ones"),
        (1.0, 1.0, 0.0, ENOUGH_GROUPS - 1, None),  # by chance, of the few questions of a small step
    ],
)
def test_a_first_step(zero_share: float, well_formed: float, reward: float, groups: int, said: str | None) -> None:
    metrics = {"advantage/zero_share": zero_share, "reward/format": well_formed, "reward/mean": reward}
    if said is None:
        watch().stepped(metrics, [GOOD] * groups)
    else:
        with pytest.raises(Unready, match=said):
            watch().stepped(metrics, [BAD] * groups)


def questions(folder: Path, **more: object) -> Path:
    path = folder / "my questions.jsonl"
    path.write_text(json.dumps({"id": "1", "question": "who?", "golden_answers": ["Ada"]} | more) + "\n")
    return path


def test_the_command_is_one_that_the_warm_start_accepts_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    said = teach(
        ["--config", "runs/a/config.toml", "--search.top_k", "2"],
        model="Qwen/Qwen2.5-7B",
        questions=questions(tmp_path, sub_queries=["Who is Ada?"]),
        corpus=tmp_path / "corpus",
        out=Path("runs/a-warm"),
    )
    command, then = said.removeprefix("Teach it first: ").split("; ")
    python, *words = shlex.split(command)
    arguments = words[2:]
    assert (python, words[:2]) == (".venv/bin/python", ["-m", "workflows.warm_start"])
    known, overrides = warm_start.warm_start_parser().parse_known_args(arguments)
    assert (known.questions, known.corpus, known.out) == (
        Path("my questions.jsonl"),
        Path("corpus"),
        Path("runs/a-warm"),
    )
    assert overrides == ["--search.top_k", "2"]
    assert then == "then train with --model.path runs/a-warm --run.overwrite true"


def test_questions_without_gold_sub_queries_are_said_to_teach_nothing(tmp_path: Path) -> None:
    said = teach([], model="m", questions=questions(tmp_path), corpus=tmp_path, out=tmp_path / "out")
    assert "--questions QUESTIONS (QUESTIONS with gold sub-queries, which my questions.jsonl has not" in said
