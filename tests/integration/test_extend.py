"""docs/extend.md and examples/ are true: they train through every real process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calibadv.pocket import policy_path
from tests.integration.commands import ROOT, ended, ray_folder, start
from tests.integration.runs import SMALL, lines

pytestmark = pytest.mark.integration


def examples() -> str:
    """mine.py as the page has it; the import that must come first in a file is put there."""
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    return "\n\n".join(blocks)


def test_a_run_with_a_reward_a_search_and_a_method_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(examples(), encoding="utf-8")
    given = SMALL | {
        "run.folder": "runs",
        "run.cache": "cache",
        "model.path": str(policy_path()),
        "reward.outcome": "mine.py:reward",
        "search.tool": "mine.py:search",
        "method.name": "mine.py:method",
        "method.params.scale": "0.25",
        "sentinel.unready": "off",  # three facts answer no question of the pocket world
    }
    arguments = [part for key, value in given.items() for part in (f"--{key}", value)]
    with ray_folder() as ray:
        code, output = ended(start(ROOT / "workflows" / "train.py", *arguments, cwd=tmp_path, ray=ray))
    assert code == 0, output
    assert "reward.outcome mine.py:reward: 1 for a right answer to " in output
    assert "answer 1, thrift 0" in output
    assert "search.tool mine.py:search: " in output
    folder = tmp_path / "runs" / "method-seed3"
    _, *steps = lines(folder / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["reward/part_answer"] + step["reward/part_thrift"] == pytest.approx(step["reward/mean"], abs=1e-6)
    rollouts = lines(folder / "rollouts.jsonl")
    found = {document["id"] for row in rollouts for turn in row["turns"] for document in turn["documents"]}
    assert found <= {"oslo", "ada"}
    assert all(set(row["reward_parts"]) == {"answer", "thrift"} for row in rollouts)
    assert json.loads((folder / "summary.json").read_text())["params"]["scale"] == 0.25


def test_the_example_of_the_python_api_trains_with_its_own_reward(tmp_path: Path) -> None:
    with ray_folder() as ray:
        code, output = ended(start(ROOT / "examples" / "ten_lines.py", cwd=tmp_path, ray=ray))
    assert code == 0, output
    _, *steps = lines(tmp_path / "runs" / "ten-lines" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all("reward/part_thrift" in step for step in steps)
    assert "reward/part_thrift" in output
    assert str(Path("runs") / "ten-lines" / "model") in output
