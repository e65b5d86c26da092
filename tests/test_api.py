"""What `import calibadv` offers, before anything is started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import calibadv
from calibadv.config import load_config, to_toml
from calibadv.methods import Method, make_method
from calibadv.tracking.finished_run import Run
from calibadv.user_code import hand_in, load
from workflows import api


def test_the_package_offers_its_front_door_and_loads_nothing_for_it() -> None:
    code = (
        "import sys, calibadv; "
        "print(sorted(set(sys.modules) & {'torch', 'ray', 'pandas', 'workflows'}), calibadv.__all__)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[] ['Config', 'Run', 'evaluate', 'load_config', 'train']"
    assert calibadv.train is api.train
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        calibadv.trian  # noqa: B018


def test_a_function_that_is_handed_in_is_found_by_its_reference() -> None:
    def half(scale: float = 0.5) -> Method:
        assert scale == 2
        return make_method("grpo", {})

    reference = hand_in(half)
    assert reference.endswith(":half")
    assert load(reference, "method.name") is half
    config = load_config(None, {"method.name": reference, "method.params": {"scale": 2}})
    assert config.run_name == "half-seed0"
    assert config.run_method().name == "grpo"


def test_sections_go_over_a_recipe_and_over_a_configuration(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[run]\nsteps = 7\nseed = 3\n")
    config = api.config_of(recipe, {"run": {"steps": 2}})
    assert (config.run.steps, config.run.seed) == (2, 3)
    again = api.config_of(config, {"run": {"seed": 4}, "reward.outcome": "em"})
    assert (again.run.steps, again.run.seed, again.reward.outcome) == (2, 4, "em")


def test_a_section_may_hold_a_function_as_well() -> None:
    def find(query: str, k: int) -> list[dict[str, str]]:
        return [{"id": query, "title": query, "text": query}][:k]

    alone = api.settings_of({"search": find, "run": {"steps": 2}})
    among = api.settings_of({"search": {"tool": find, "top_k": 5}})
    assert alone == {"search.tool": "tests.test_api:find", "run.steps": 2}
    assert among == {"search.tool": "tests.test_api:find", "search.top_k": 5}
    assert load("tests.test_api:find", "search.tool") is find


def test_tools_are_functions_references_or_entries_and_need_a_dialogue_that_calls_them() -> None:
    def add(a: float, b: float) -> float:
        """Adds."""
        return a + b

    assert api.tool_of(add) == {"function": "tests.test_api:add"}
    assert load("tests.test_api:add", "rollout.tools") is add
    assert api.tool_of("tools.py:add") == {"function": "tools.py:add"}
    assert api.tool_of({"function": add, "name": "plus"}) == {"function": "tests.test_api:add", "name": "plus"}
    config = api.config_of("pocket", {"rollout.tools": [api.tool_of(add)], "rollout.dialogue": "hermes"})
    assert [tool.called for tool in config.rollout.tools] == ["add"]
    with pytest.raises(ValueError, match=r"rollout\.tools = add, and rollout\.dialogue = 'tags'"):
        calibadv.train("pocket", tools=[add])


def test_bad_input_is_a_value_error_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"reward\.outcome = 'f2' is not known"):
        calibadv.train("pocket", reward="f2")
    with pytest.raises(ValueError, match=r"unknown key 'run\.stpes'"):
        calibadv.train("pocket", run={"stpes": 2})


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    config = load_config(None, {"run.seed": 5})
    (tmp_path / "config.toml").write_text(to_toml(config))
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval/f1": 0.25}\n{"step": 1, "reward/mean": 0.5}\n')
    (tmp_path / "rollouts.jsonl").write_text(json.dumps({"step": 0, "reward": 1.0, "turns": [{"query": "x"}]}) + "\n")
    run = Run(tmp_path)
    assert run.config == config
    assert run.metrics.loc[1, "reward/mean"] == 0.5
    assert run.metrics["eval/f1"].isna().tolist() == [False, True]
    assert run.rollouts["turns"][0] == [{"query": "x"}]
    with pytest.raises(ValueError, match="has not finished"):
        run.summary  # noqa: B018
    with pytest.raises(ValueError, match="holds no model yet"):
        run.model  # noqa: B018
    with pytest.raises(ValueError, match="is no run's folder"):
        Run(tmp_path / "nowhere")
