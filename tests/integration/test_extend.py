"""docs/extend.md and examples/ are true: they train through every real process, within a program."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from calibadv.pocket import policy_path
from calibadv.tracking.groups import read_groups
from tests.extend_page import example, examples, mine
from tests.integration.calling_policy import answer, call, calling_policy
from tests.integration.commands import ROOT, without_seconds
from tests.integration.runs import SMALL, lines, made_here
from tests.rollout.chat_templates import QWEN3

pytestmark = pytest.mark.integration


# A server of tools that every engine starts for itself.
SERVER = Path(__file__).parents[1] / "rollout" / "mcp_calculator.py"
CALCULATOR = f'{{command = {json.dumps([sys.executable, str(SERVER)])}, name = "add", timeout_s = 120}}'


def pocket_with(folder: Path, example: str) -> str:
    """A recipe in the folder: that of the pocket world, with the page's example over it."""
    whole = tomllib.loads((ROOT / "workflows" / "recipes" / "pocket.toml").read_text(encoding="utf-8"))
    for section, values in tomllib.loads(example).items():
        whole.setdefault(section, {}).update(values)
    (folder / "recipe.toml").write_text(tomli_w.dumps(whole), encoding="utf-8")
    return "recipe.toml"


def asked_for(given: dict[str, str]) -> list[str]:
    return [part for key, value in given.items() for part in (f"--{key}", value)]


# The page's search says what it was asked and never gives the same text twice; its method says where it is made.
MOODY = """
import os

async def moody(query: str, k: int) -> list[dict[str, str]]:
    import random

    with open({asked!r}, "a") as file:
        file.write(f"{{query}}\\n")
    return [{{**fact, "text": f"{{fact['text']}} {{random.random()}}"}} for fact in await search(query, k)]


def told(scale: float = 1.0) -> Method:
    with open({made!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    return method(scale)
"""


@pytest.mark.usefixtures("local_ray")
def test_a_run_with_a_reward_a_search_and_a_method_of_ones_own_and_a_second_one_that_asks_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, made = tmp_path / "asked.txt", tmp_path / "made.txt"
    (tmp_path / "mine.py").write_text(mine() + MOODY.format(asked=str(asked), made=str(made)), encoding="utf-8")
    recipe = pocket_with(tmp_path, example("A ledger of answers, and limits", "toml"))
    calibadv, train, *names = shlex.split(example("Your own reward, search engine, tools, dialogue and method", ""))
    assert (calibadv, train) == ("calibadv", "train")
    given = SMALL | {
        "run.folder": str(tmp_path / "runs"),
        "run.cache": str(tmp_path / "cache"),
        "model.path": str(policy_path()),
        "search.tool": "mine.py:moody",
        "method.name": "mine.py:told",
        "method.params.scale": "0.25",
        "learner.surrogate": "mine.py:surrogate",
        "sentinel.unready": "off",  # three facts answer no question of the pocket world
    }

    monkeypatch.chdir(tmp_path)
    code, output = made_here(["--config", recipe, *names, *asked_for(given)], capsys)
    assert code == 0, output
    assert "reward.outcome mine.py:reward: 1 for a right answer to " in output
    assert "answer 1, thrift 0" in output
    assert "learner.surrogate mine.py:surrogate: gradients 1 and -1 at advantages 1 and -1" in output
    assert "search.tool = 'mine.py:moody': " in output
    assert "search.ledger ledger.sqlite: 0 answers of this engine" in output
    assert made.read_text().split() == [str(os.getpid())]  # once a run, here, and sent to all who need it
    folder = tmp_path / "runs" / "told-seed3"
    first, *steps = lines(folder / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["reward/part_answer"] + step["reward/part_thrift"] == pytest.approx(step["reward/mean"], abs=1e-6)
    rollouts = lines(folder / "rollouts.jsonl")
    found = {document["id"] for row in rollouts for turn in row["turns"] for document in turn["documents"]}
    assert found <= {"oslo", "ada"}
    assert all(set(row["reward_parts"]) == {"answer", "thrift"} for row in rollouts)
    assert json.loads((folder / "summary.json").read_text())["params"]["scale"] == 0.25

    (_, *queries) = asked.read_text().splitlines()  # the first was the trial before the run
    assert sum(step["search/calls"] for step in (first, *steps)) == len(queries) == len(set(queries)) > 0
    assert sum(step["search/cost"] for step in (first, *steps)) == pytest.approx(0.005 * len(queries))
    asked.unlink()
    again = ["--config", recipe, *names, *asked_for(given | {"run.name": "again"})]
    code, output = made_here(again, capsys)
    assert code == 0, output
    assert not asked.exists()  # not even to try it
    second = tmp_path / "runs" / "again"
    assert without_seconds(lines(second / "rollouts.jsonl")) == without_seconds(rollouts)
    for step in lines(second / "metrics.jsonl"):
        assert (step["search/calls"], step["search/cost"], step["search/hit_rate"]) == (0, 0, 1)
        assert step["search/queries"] == step["search/hits"] > 0


# One call each of what is at hand, and an answer; greedy rollouts search.
TURNS = (
    call("search", query="Oslo"),
    call("calculate", expression="1912 - 1879"),
    call("add", a=20, b=22),
    answer("Oslo"),
)

# Each fails once, at a training question: the tool its first call, the reward the first question that it is asked of.
SHAKY = """

CALLS, REFUSED = [], []


def shaky(expression: str) -> str:
    \"\"\"Gives the value of an arithmetic expression.\"\"\"
    CALLS.append(expression)
    if len(CALLS) == 1:
        raise ConnectionError("no calculator today")
    return calculate(expression)


def doubtful(question: Question, trajectory: Trajectory) -> Mapping[str, float]:
    if question.id.startswith("train") and len(trajectory.prompt_ids):  # the trial before the run has no tokens
        REFUSED.append(question.id)
        if question.id == REFUSED[0]:
            raise ConnectionError(f"no reward for {question.id}")
    return reward(question, trajectory)
"""


def trained_in(
    dialogue: str, folder: Path, capsys: pytest.CaptureFixture[str], *flags: str, **more: str
) -> tuple[str, list[dict[str, Any]]]:
    """What two steps of a policy that calls tools say, and their metrics, in `folder`/runs/`dialogue`."""
    given = SMALL | {
        "run.name": dialogue,
        "run.folder": str(folder / "runs"),
        "run.cache": str(folder / "cache"),
        "model.path": str(calling_policy(folder / "policy", QWEN3, TURNS)),
        "data.test_questions": "2",
        "search.tool": "mine.py:search",
        "sentinel.unready": "off",
        "method.params.pre_think": "false",
        "rollout.dialogue": dialogue,
        "rollout.torch_dtype": "float32",
        "rollout.max_turns": "2",
        "rollout.max_prompt_tokens": "1400",
        "rollout.max_turn_tokens": "24",
        "rollout.max_tokens": "2000",
    }
    given |= {key.replace("__", "."): value for key, value in more.items()}
    code, output = made_here([*flags, *asked_for(given)], capsys)
    assert code == 0, output
    _, *steps = lines(folder / "runs" / dialogue / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    return output, steps


def test_the_page_s_command_of_a_dialogue_is_accepted_for_a_template_that_can_be_told_not_to_think(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = next(text for _, text in examples()["A dialogue"] if text.startswith("calibadv train "))
    policy = calling_policy(tmp_path / "policy", QWEN3, TURNS)
    given = SMALL | {"model.path": str(policy), "rollout.max_prompt_tokens": "1400", "rollout.max_tokens": "2000"}
    code, output = made_here([*shlex.split(command)[2:], *asked_for(given), "--dry-run"], capsys)
    assert code == 0, output
    assert 'dialogue = "template"' in output
    assert "enable_thinking = false" in output


def total(steps: list[dict[str, Any]], name: str) -> float:
    return sum(step.get(name, 0.0) for step in steps)


@pytest.mark.usefixtures("local_ray")
def test_hermes_calls_two_tools_beside_the_search_and_what_fails_of_tool_or_reward_is_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(mine() + SHAKY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shaky = '{function = "mine.py:shaky", name = "calculate", retries = 0}'
    output, steps = trained_in(
        "hermes",
        tmp_path,
        capsys,
        reward__outcome="mine.py:doubtful",
        rollout__infra_retries="0",
        tracking__sampled_rollouts="4",
        rollout__tools=f"[{shaky}, {CALCULATOR}]",
    )
    assert "tool calculate(expression): Gives the value of an arithmetic expression" in output
    assert "tool add(a, b): Adds two numbers." in output
    assert total(steps, "tool/calculate_calls") > 0
    assert total(steps, "tool/add_calls") > 0
    assert total(steps, "tool/add_failed") == 0
    first, second = steps
    assert (first["tool/calculate_failed"], first["rollout/infra_failed_count"]) == (1, 1)
    assert first["reward/failed_count"] >= 1
    assert first["rollout/dropped_groups"] in (1, 2)  # the two may have met
    assert second["rollout/dropped_groups"] == second["rollout/infra_failed_count"] == 0
    stored = [step.groups for step in read_groups(tmp_path / "runs" / "hermes")]  # all of them: 4 are sampled
    assert [len(groups) for groups in stored] == [4 - first["rollout/dropped_groups"], 4]
    assert not any(t.infra_failed for groups in stored for group in groups for t in group.trajectories)


@pytest.mark.usefixtures("local_ray")
def test_a_chat_template_s_dialogue_trains_with_rewards_of_turns_and_spare_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(mine(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (_, function), _, (_, servers) = examples()["Tools"]
    (_, started, _) = servers.split("[[rollout.tools]]\n")
    command = json.dumps([sys.executable, str(SERVER)])
    started = started.replace('["python", "calculator.py"]', f'{command}\nname = "add"\ntimeout_s = 120')
    recipe = pocket_with(tmp_path, f"{function}\n[[rollout.tools]]\n{started}")
    output, steps = trained_in(
        "template",
        tmp_path,
        capsys,
        "--config",
        recipe,
        data__questions_per_step="2",
        method__params__soft_pen="turns",
        reward__turns="mine.py:turns",
        method__keep="credited",
        method__spare_questions="1",
        rollout__on_void_turn="retry",
    )
    assert "reward.turns mine.py:turns: 0, 0 for a search and a right answer to " in output
    assert total(steps, "tool/calculate_calls") > 0
    assert total(steps, "tool/add_calls") > 0
    assert all(step["rollout/infra_failed_count"] == 0 for step in steps)
    assert all(step["learner/kept_share"] == 1 - step["advantage/zero_share"] for step in steps)
    assert all(step["rollout/spare_groups"] >= step["advantage/zero_share"] * 2 for step in steps)
    assert all((step["learner/updates"] > 0) == (step["learner/kept_share"] > 0) for step in steps)
    config = (tmp_path / "runs" / "template" / "config.toml").read_text(encoding="utf-8")
    assert 'dialogue = "template"' in config
    assert config.count("[[rollout.tools]]") == 2


@pytest.mark.usefixtures("local_ray")
def test_the_example_of_the_python_api_trains_with_its_own_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    runpy.run_path(str(ROOT / "examples" / "ten_lines.py"), run_name="__main__")
    output = "".join(capsys.readouterr())
    _, *steps = lines(tmp_path / "runs" / "ten-lines" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all("reward/part_thrift" in step for step in steps)
    assert "reward/part_thrift" in output
    assert str(Path("runs") / "ten-lines" / "model") in output
