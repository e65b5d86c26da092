"""docs/extend.md and examples/ are true: they train through every real process, as commands and within a program."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from calibadv.pocket import policy_path
from tests.integration.commands import ROOT, ended, ray_folder, start, without_seconds
from tests.integration.runs import SMALL, lines, made_here
from tests.rollout.chat_templates import QWEN3

pytestmark = pytest.mark.integration


# A server of tools that every engine starts for itself.
SERVER = Path(__file__).parents[1] / "rollout" / "mcp_calculator.py"
CALCULATOR = f'{{command = {json.dumps([sys.executable, str(SERVER)])}, name = "add", timeout_s = 120}}'


def examples() -> str:
    """mine.py as the page has it; the import that must come first in a file is put there."""
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    return "\n\n".join(blocks)


def asked_for(given: dict[str, str]) -> list[str]:
    return [part for key, value in given.items() for part in (f"--{key}", value)]


# The page's search, which says what it was asked, and never gives the same text twice.
MOODY = """

async def moody(query: str, k: int) -> list[dict[str, str]]:
    import random

    with open({asked!r}, "a") as file:
        file.write(f"{{query}}\\n")
    return [{{**fact, "text": f"{{fact['text']}} {{random.random()}}"}} for fact in await search(query, k)]
"""


@pytest.mark.usefixtures("local_ray")
def test_a_run_with_a_reward_a_search_and_a_method_of_ones_own_and_a_second_one_that_asks_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "asked.txt"
    (tmp_path / "mine.py").write_text(examples() + MOODY.format(asked=str(asked)), encoding="utf-8")
    given = SMALL | {
        "run.folder": str(tmp_path / "runs"),
        "run.cache": str(tmp_path / "cache"),
        "model.path": str(policy_path()),
        "reward.outcome": "mine.py:reward",
        "search.tool": "mine.py:moody",
        "search.ledger": str(tmp_path / "ledger.sqlite"),
        "search.call_price": "0.01",
        "search.concurrency": "4",
        "method.name": "mine.py:method",
        "method.params.scale": "0.25",
        "learner.surrogate": "mine.py:surrogate",
        "sentinel.unready": "off",  # three facts answer no question of the pocket world
    }

    with ray_folder() as ray:
        code, output = ended(start(ROOT / "workflows" / "train.py", *asked_for(given), cwd=tmp_path, ray=ray))
    assert code == 0, output
    assert "reward.outcome mine.py:reward: 1 for a right answer to " in output
    assert "answer 1, thrift 0" in output
    assert "learner.surrogate mine.py:surrogate: gradients 1 and -1 at advantages 1 and -1" in output
    assert "search.tool = 'mine.py:moody': " in output
    assert f"search.ledger {tmp_path / 'ledger.sqlite'}: 0 answers of this engine" in output
    folder = tmp_path / "runs" / "method-seed3"
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
    assert sum(step["search/cost"] for step in (first, *steps)) == pytest.approx(0.01 * len(queries))
    asked.unlink()
    monkeypatch.chdir(tmp_path)
    code, output = made_here(asked_for(given | {"run.name": "again"}), capsys)
    assert code == 0, output
    assert not asked.exists()  # not even to try it
    again = tmp_path / "runs" / "again"
    assert without_seconds(lines(again / "rollouts.jsonl")) == without_seconds(rollouts)
    for step in lines(again / "metrics.jsonl"):
        assert (step["search/calls"], step["search/cost"], step["search/hit_rate"]) == (0, 0, 1)
        assert step["search/queries"] == step["search/hits"] > 0


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("dialogue", ["hermes", "template"])
def test_a_dialogue_of_calls_trains_with_a_tool_beside_the_search(
    dialogue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The pocket policy knows neither: what its turns are worth is a matter of tests/rollout/test_chat_dialogue.py.
    (tmp_path / "mine.py").write_text(examples(), encoding="utf-8")
    policy = shutil.copytree(policy_path(), tmp_path / "policy")
    (policy / "chat_template.jinja").write_text(QWEN3, encoding="utf-8")
    given = SMALL | {
        "run.name": dialogue,
        "run.folder": str(tmp_path / "runs"),
        "run.cache": str(tmp_path / "cache"),
        "model.path": str(policy),
        "data.questions_per_step": "2",
        "data.test_questions": "2",
        "search.tool": "mine.py:search",
        "sentinel.unready": "off",
        "method.params.soft_pen": "turns",
        "reward.turns": "mine.py:turns",
        "method.keep": "credited",
        "method.spare_questions": "1",
        "rollout.dialogue": dialogue,
        "rollout.tools": f'[{{function = "mine.py:calculate", timeout_s = 5, max_tokens = 64}}, {CALCULATOR}]',
        "rollout.on_void_turn": "retry",
        "rollout.max_turns": "2",
        "rollout.max_prompt_tokens": "1400",
        "rollout.max_turn_tokens": "24",
        "rollout.max_tokens": "2000",
    }
    monkeypatch.chdir(tmp_path)
    code, output = made_here(asked_for(given), capsys)
    assert code == 0, output
    assert "reward.turns mine.py:turns: 0, 0 for a search and a right answer to " in output
    assert "tool calculate(expression): Gives the value of an arithmetic expression" in output
    assert "tool add(a, b): Adds two numbers." in output
    folder = tmp_path / "runs" / dialogue
    _, *steps = lines(folder / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["rollout/infra_failed_count"] == 0 for step in steps)
    assert all(step["learner/kept_share"] == 1 - step["advantage/zero_share"] for step in steps)
    assert all(step["rollout/spare_groups"] >= step["advantage/zero_share"] * 2 for step in steps)
    assert all((step["learner/updates"] > 0) == (step["learner/kept_share"] > 0) for step in steps)
    config = (folder / "config.toml").read_text(encoding="utf-8")
    assert f'dialogue = "{dialogue}"' in config
    assert config.count("[[rollout.tools]]") == 2


def test_the_example_of_the_python_api_trains_with_its_own_reward(tmp_path: Path) -> None:
    with ray_folder() as ray:
        code, output = ended(start(ROOT / "examples" / "ten_lines.py", cwd=tmp_path, ray=ray))
    assert code == 0, output
    _, *steps = lines(tmp_path / "runs" / "ten-lines" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all("reward/part_thrift" in step for step in steps)
    assert "reward/part_thrift" in output
    assert str(Path("runs") / "ten-lines" / "model") in output
