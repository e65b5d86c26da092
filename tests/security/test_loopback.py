"""What listens, listens on loopback unless it is told otherwise: the search app, Ray, MLflow."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private import ray_constants

import serve.app
from calibadv.cluster import local_ray
from calibadv.config import load_config
from calibadv.tracking.moved_store import DATABASE
from calibadv.tracking.pages import ui_command
from tests.security.test_source_tree import SOURCES, calls, constant, keyword

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"

THE_ONE_PLACE = "calibadv/cluster/local_ray.py"  # where a Ray of this machine is started
RAY_STARTS = [(path, call) for path, tree in SOURCES.items() for call, name in calls(tree) if name == "ray.init"]


def test_the_search_app_of_a_run_opens_no_port_unless_it_is_given_one() -> None:
    assert load_config(None).search.http_port is None


def test_the_search_app_of_a_run_listens_on_loopback() -> None:
    search = load_config(None, {"search.http_port": 8000}).search
    assert (search.http_host, search.http_port) == (LOOPBACK, 8000)


def test_the_search_command_listens_on_loopback() -> None:
    config, _, _ = serve.app.asked(["--corpus", "corpus.jsonl"])
    assert (config.http_host, config.http_port) == (LOOPBACK, 8000)


@pytest.mark.parametrize("path", sorted((ROOT / "serve").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_file_of_serve_listens_on_loopback(path: Path) -> None:
    """By Serve's proxy, or without one by the settings' own address."""
    given = yaml.safe_load(path.read_text("utf-8"))
    assert given.get("http_options", {}).get("host") == (None if given["proxy_location"] == "Disabled" else LOOPBACK)
    assert "host" not in str([application["args"] for application in given["applications"]])


def test_the_agent_listens_on_loopback() -> None:
    assert load_config(None).serve.host == LOOPBACK


def test_a_local_ray_is_told_that_its_node_is_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def init(**given: Any) -> None:
        seen.update(given, node=ray.util.get_node_ip_address())

    # What Ray itself would take; listening on anything else, it listens on every interface.
    monkeypatch.setattr(ray, "init", init)
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))  # so that nothing of the home's is written
    before = ray_constants.ENABLE_RAY_CLUSTER
    local_ray.init_local_ray(num_cpus=3)
    assert seen.pop("_metrics_export_port") > 0
    assert seen == {"address": "local", "include_dashboard": False, "num_cpus": 3, "node": LOOPBACK}
    assert ray_constants.ENABLE_RAY_CLUSTER is before is True


def test_a_ray_that_does_not_start_leaves_clusters_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match="no room"):
        local_ray.init_local_ray()
    assert ray_constants.ENABLE_RAY_CLUSTER is True


def test_the_token_of_a_local_ray_is_ours_alone(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    token.write_text("t")
    token.chmod(0o644)
    local_ray.hide(token)
    assert token.stat().st_mode & 0o777 == 0o600
    local_ray.hide(tmp_path / "none")


def test_every_other_ray_is_one_that_runs_already() -> None:
    # `ray.init()` alone follows whatever cluster was started last, or makes one of its own.
    assert {path for path, _ in RAY_STARTS} >= {"calibadv/cluster/ray_session.py", THE_ONE_PLACE}
    wrong = [
        f"{path}:{call.lineno}"
        for path, call in RAY_STARTS
        if path != THE_ONE_PLACE and constant(keyword(call, "address")) in (None, "local")
    ]
    assert wrong == []


def test_make_mlflow_listens_on_loopback(tmp_path: Path) -> None:
    (recipe,) = [
        line for line in (ROOT / "Makefile").read_text("utf-8").split("\n") if "calibadv.tracking.pages" in line
    ]
    assert "--host" not in recipe  # the module that `make mlflow` runs says where
    (tmp_path / DATABASE).touch()
    words = ui_command(tmp_path, 5000)
    assert words[words.index("--host") + 1] == LOOPBACK


def test_nothing_that_listens_takes_tensors_or_pickles_from_a_socket() -> None:
    # vLLM's and torch's own servers for that are for networks that nobody else is on.
    words = {"torch.distributed.rpc", "multiprocessing.connection", "multiprocessing.managers"}
    found = [
        f"{path}:{node.lineno}"
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and any(word in ast.unparse(node) for word in words)
    ]
    assert found == []
