"""What `calibadv serve` is asked to serve; nothing is started here."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest
import yaml
from ray import cloudpickle

from calibadv.config import Config, to_toml
from calibadv.config.serve import ServeConfig
from calibadv.pocket import policy_path
from serve.agent.app import FLUSH_S
from serve.agent.application import agent_application, feedback_file
from serve.agent.builder import AgentArgs, agent_app
from serve.listening import DRAIN_S
from workflows.runs import newest_run
from workflows.serve_agent import parse_command

ROOT = Path(__file__).parents[2]


def made_run(folder: Path, name: str, written_s: int, *, model: bool = True) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(Config()))
    (run / "metrics.jsonl").write_text("")
    if model:
        shutil.copytree(policy_path(), run / "model")
        os.utime(run / "model", (written_s, written_s))
    return run


def test_the_newest_run_with_a_model_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "runs", "old", 1000)
    made_run(tmp_path / "runs", "new", 2000)
    made_run(tmp_path / "runs", "unfinished", 3000, model=False)
    monkeypatch.chdir(tmp_path)
    assert newest_run("model").name == "new"
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(ValueError, match=r"or train one \(make train\)"):
        newest_run("model")


def test_a_run_is_served_by_its_name_with_its_own_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_run(tmp_path / "runs", "mine", 1000)
    monkeypatch.chdir(tmp_path)
    for given in (["mine"], ["runs/mine"], []):
        model = parse_command([*given, "--serve.port", "9000", "--rollout.max_turns", "2"])
        assert (model.name, model.config.serve.port, model.config.rollout.max_turns) == ("mine", 9000, 2)
        assert model.config.rollout.template == Config().rollout.template
        assert model.folder.samefile(tmp_path / "runs" / "mine" / "model")


def test_an_open_host_needs_a_token_and_a_token_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"serve\.host = '10\.0\.0\.1' is open to the network"):
        ServeConfig(host="10.0.0.1")
    config = Config(serve=ServeConfig(host="10.0.0.1", token_env="NO_SUCH_TOKEN"))
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    with pytest.raises(ValueError, match="this process has no such environment variable"):
        agent_application(config, "mine", tmp_path, lambda: None)  # type: ignore[arg-type,return-value]


def test_the_value_of_a_token_is_in_nothing_that_ray_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_TOKEN", "planted-secret")
    run = made_run(tmp_path, "mine", 1000)
    built = agent_app({"model": str(run), "overrides": {"serve.token_env": "AGENT_TOKEN"}})
    assert b"AGENT_TOKEN" in (sent := cloudpickle.dumps(built))
    assert b"planted-secret" not in sent


def test_replicas_scale_where_there_may_be_more_of_them() -> None:
    with pytest.raises(ValueError, match=r"serve\.max_replicas = 1 is below serve\.replicas = 2"):
        ServeConfig(replicas=2, max_replicas=1)
    with pytest.raises(ValueError, match=r"serve\.max_replicas = 5 engines would never start for .* = 4 questions"):
        ServeConfig(max_replicas=5, max_concurrent=4)
    assert feedback_file(Config()).name == "feedback.jsonl"


def test_as_many_engines_start_as_there_may_be_and_each_ends_when_it_has_answered(tmp_path: Path) -> None:
    for most, at_once, sampled in ((8, 64, 512), (7, 64, 512), (4, 4, 512), (2, 64, 20)):
        config = Config(serve=ServeConfig(max_replicas=most, max_concurrent=at_once, timeout_s=120.0))
        config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"max_concurrent": sampled})})
        app = agent_application(config, "mine", tmp_path, lambda: None)  # type: ignore[arg-type,return-value]
        front = app._bound_deployment
        engines = front.init_args[1]._bound_deployment
        scaling = engines._deployment_config.autoscaling_config
        assert math.ceil(at_once / scaling.target_ongoing_requests) >= most
        assert scaling.target_ongoing_requests <= sampled // 2
        assert engines._deployment_config.graceful_shutdown_timeout_s > config.serve.timeout_s
        # Serve's own wait, calls under way, and traces.
        assert front._deployment_config.graceful_shutdown_timeout_s > 2 + DRAIN_S + FLUSH_S


def test_the_config_file_is_what_the_builder_takes(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "serve" / "agent.yaml").read_text())
    search, agent = config["applications"]
    assert (search["import_path"], search["route_prefix"]) == ("serve.agent.builder:search_app", None)
    assert (agent["import_path"], agent["route_prefix"]) == ("serve.agent.builder:agent_app", None)
    assert search["args"] == agent["args"]  # one configuration
    assert config["proxy_location"] == "Disabled"  # the front listens itself
    AgentArgs.model_validate(agent["args"])
    run = made_run(tmp_path, "mine", 1000)
    built = agent_app({"model": str(run), "overrides": {"serve.max_concurrent": 3, "cluster.gpus_per_engine": 0.5}})
    front = built._bound_deployment
    assert front.init_args[0].settings.max_concurrent == 3
    assert front.ray_actor_options["resources"] == {"node:__internal_head__": 0.001}
    engines = front.init_args[1]._bound_deployment
    assert engines.ray_actor_options["num_gpus"] == 0.5
