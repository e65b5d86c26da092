"""Tokens and keys: read from the environment where they are used, and written nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from calibadv.config import Config, ConfigError, load_config, to_toml
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryPolicy
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.run_folder import RunFolder
from tests.build import configured, overrides_of

SECRET = "s3cr3t-of-this-test"


@pytest.fixture
def with_secrets(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration that names every secret there is, each in its variable."""
    for variable in ("SEARCH_TOKEN", "JUDGE_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, SECRET)
    return load_config(
        None,
        overrides_of(
            *("--search.url", "http://127.0.0.1:9/retrieve", "--search.token_env", "SEARCH_TOKEN"),
            *("--method.params.soft_pen", "judge", "--method.params.judge_model", "m"),
            *("--method.params.judge_url", "http://127.0.0.1:9/v1", "--tracking.mlflow_uri", "http://127.0.0.1:9"),
        ),
    )


class Down(MlflowStore):
    """A store that does not answer."""

    def connect(self) -> Mapping[str, int]:
        raise RuntimeError("the store is down")


def test_a_run_writes_no_secret_anywhere(tmp_path: Path, with_secrets: Config) -> None:
    uri = with_secrets.tracking.mlflow_uri
    with (
        RunFolder(tmp_path / "run") as folder,
        MlflowRun(folder.path, uri=uri, tags={"method": "calibadv"}, store=Down) as mlflow,
    ):
        folder.write_config(to_toml(with_secrets))
        mlflow.log_params(with_secrets.model_dump(mode="json"))
        mlflow.close(timeout_s=5)
    written = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert b"SEARCH_TOKEN" in written["config.toml"]  # the name, so that the run can be repeated
    assert b"search.token_env" in written["mlflow.jsonl"]  # what is to be sent
    assert [name for name, content in written.items() if SECRET.encode() in content] == []


async def test_the_token_goes_into_the_header_and_into_no_error(with_secrets: Config) -> None:
    asked = []

    def overloaded(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503, text="try later")

    search = http_search(with_secrets.search, RetryPolicy(patience_s=0.0), httpx.MockTransport(overloaded))
    with pytest.raises(SearchFailed) as caught:
        await search("who?")
    assert asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(asked[0].url) + asked[0].content.decode() + str(caught.value)


@pytest.mark.usefixtures("with_secrets")
async def test_a_server_cannot_send_the_token_on_to_another() -> None:
    asked = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"location": "http://elsewhere.example/retrieve"})

    transport = httpx.MockTransport(elsewhere)
    config = SearchConfig(url="http://here.example", token_env="SEARCH_TOKEN")
    search = http_search(config, RetryPolicy(patience_s=0.0), transport)
    with pytest.raises(SearchFailed):
        await search("who?")
    assert asked == ["here.example"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracking.mlflow_uri", f"https://ada:{SECRET}@mlflow.example"),
        ("tracking.mlflow_uri", f"postgresql://ada:{SECRET}@db.example/mlflow"),
        ("search.url", f"http://ada:{SECRET}@search.example/retrieve"),
        ("search.url", f"https://search.example/retrieve?api_key={SECRET}"),
        ("search.url", f"https://search.example/retrieve?top=3&access_token={SECRET}"),
        ("search.url", f"https://search.example/retrieve?authToken={SECRET}"),
        ("search.url", f"https://search.example/retrieve?sessionToken={SECRET}"),
        ("search.url", f"https://search.example/retrieve?apikey={SECRET}"),
        ("search.url", f"https://search.example/retrieve?code={SECRET}"),
        ("search.url", f"https://{SECRET}@search.example/retrieve"),
        ("tracking.mlflow_uri", f"https://{SECRET}@mlflow.example"),
        ("search.token_env", SECRET),
        ("data.train", f"s3://key:{SECRET}@bucket/questions.jsonl"),
    ],
)
def test_a_secret_in_the_configuration_is_refused_without_being_shown(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(f"--{key}", value)
    assert key in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"command": ["srv", "--api-key", SECRET]},
        {"command": ["srv", f"--api-key={SECRET}"]},
        {"command": ["srv", "-token", SECRET]},
        {"command": ["env", f"API_KEY={SECRET}", "srv"]},
        {"command": ["npx", "mcp-remote", f"https://h/mcp?apiKey={SECRET}"]},
        {"command": ["srv", f"--url=https://h/mcp?apiKey={SECRET}"]},
        {"command": ["npx", "mcp-remote", "https://h/mcp", "--header", f"Authorization: Bearer {SECRET}"]},
        {"command": ["sh", "-c", f"srv --password '{SECRET}'"]},
        {"command": ["srv"], "env": [f"API_KEY={SECRET}"]},
        {"url": f"https://{SECRET}@h/mcp"},
    ],
)
def test_a_secret_of_an_mcp_server_is_refused_without_being_shown(given: dict[str, Any]) -> None:
    key = "env" if "env" in given else next(iter(given))
    tools = {"rollout.dialogue": "hermes", "rollout.tools": [given]}
    for place, settings in (("search.mcp", {"search.mcp": given}), ("rollout.tools.0", tools)):
        with pytest.raises(ConfigError, match=rf"{place}\.{key}\b.* the env of an MCP server") as caught:
            load_config(None, settings)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"command": ["srv", "--api-key-env", "MY_KEY", "--max-tokens", "5", "--token-limit=7", "--auth", "none"]},
        {"command": ["npx", "mcp-remote", "https://h/mcp?q=token", "--header", "Authorization: Bearer ${MY_KEY}"]},
        {"command": ["python", "-m", "auth.token", "key", "C:\\keys\\a", "--api-key", "--verbose"]},
        {"command": ["srv", "--key-file", "/run/secrets/key"], "env": ["API_KEY"]},
        {"url": "https://h/token/mcp?language_code=en&tokens=3"},
    ],
)
def test_an_mcp_server_without_a_secret_is_taken(given: dict[str, Any]) -> None:
    assert load_config(None, {"search.mcp": given}).search.mcp == given
    tools = {"rollout.dialogue": "hermes", "rollout.tools": [given]}
    assert len(load_config(None, tools).rollout.tools) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracking.mlflow_uri", "postgresql://ada@db.example/mlflow"),  # the password is in ~/.pgpass
        ("tracking.mlflow_uri", "sqlite:////data/mlflow.db"),
        ("search.url", "https://search.example/retrieve?monkey=1&tokens=3"),
        ("search.url", "https://search.example/tokens/key=1/retrieve?q=token&language_code=en&token_limit=3"),
        ("search.url", "https://search.example/retrieve?code=en-GB&author=ada&keywords=x&code=200"),
        ("search.token_env", "SEARCH_TOKEN_2"),
        ("data.train", "s3://bucket/questions.jsonl"),
        ("rollout.template", "Ask http://a.example?key=1 or ftp://a:b@c. {question}"),  # prose, no address
    ],
)
def test_an_address_without_a_secret_is_taken(key: str, value: str) -> None:
    section, _, name = key.partition(".")
    assert getattr(getattr(configured(f"--{key}", value), section), name) == value
