"""Which servers a run calls, by which way, and what is said of it before the start and by the doctor."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from calibadv.cluster.servers import Server, check_routes, server_in_use
from calibadv.config import load_config
from calibadv.doctor import servers
from calibadv.doctor.finding import State
from tests.build import configured

JUDGE = (
    "--method.params.soft_pen=judge",
    "--method.params.judge_model=m",
    "--method.params.judge_url=http://j.example/v1",
)
FAR = ("--search.url=http://r.example:8000/retrieve", "--tracking.mlflow_uri=http://m.example:5000", *JUDGE)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("MLFLOW_TRACKING", "JUDGE", "CALIBADV_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "")  # put back after a test that lengthens it
    monkeypatch.setenv("no_proxy", "")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", url)
        yield url


def test_every_server_by_a_proxy_is_named_at_the_start(proxy: str, caplog: Any) -> None:
    caplog.set_level("INFO")
    check_routes(configured(*FAR))
    for name, url in (
        ("search server", "r.example:8000/retrieve"),
        ("MLflow server", "m.example:5000"),
        ("judge", "j."),
    ):
        assert f"the {name} http://{url}" in caplog.text
    assert caplog.text.count(f"is asked by the proxy {proxy} (http_proxy)") == 3


@pytest.mark.usefixtures("proxy")
def test_servers_whose_token_the_proxy_would_read_are_asked_directly(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level("INFO")
    for name in ("JUDGE_API_KEY", "MLFLOW_TRACKING_TOKEN", "SEARCH"):
        monkeypatch.setenv(name, "s3cret")
    check_routes(configured(*FAR, "--search.token_env=SEARCH"))
    assert caplog.text.count("is asked directly: the proxy of http_proxy would read its token") == 3
    assert "m.example" in os.environ["no_proxy"].split(",")  # for MLflow's own client
    assert "s3cret" not in caplog.text


def test_a_socks_proxy_ends_the_command_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(
        ValueError, match=r"search server http://r\.example:8000/retrieve: all_proxy = socks5://.* is a SOCKS"
    ):
        Server("search server", "http://r.example:8000/retrieve", token=False, socks="no_such_module").route()
    check_routes(load_config(None, {"search.url": "http://127.0.0.1:8000/retrieve"}))


def test_the_terminals_line_of_the_search_names_the_proxy(proxy: str) -> None:
    assert server_in_use(configured(*FAR)) == f"http://r.example:8000/retrieve by the proxy {proxy} (http_proxy)"
    here = "http://127.0.0.1:8000/retrieve"
    assert server_in_use(load_config(None, {"search.url": here})) == here
    assert server_in_use(load_config()) == ""


def test_the_doctor_looks_where_a_request_goes_first(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = servers.reachable(Server("search server", "http://r.example/retrieve", token=False))
    assert finding.state is State.PASS
    assert f"http://r.example/retrieve is asked by the proxy {proxy} (http_proxy)" in finding.said
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    finding = servers.reachable(Server("search server", "http://r.example/retrieve", token=False))
    assert (finding.state, "add r.example to NO_PROXY" in finding.remedy) == (State.FAIL, True)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    finding = servers.reachable(Server("judge", "http://j.example/v1", token=False, socks="no_such_module"))
    assert (finding.state, "is a SOCKS proxy" in finding.said) == (State.FAIL, True)
