"""Which requests go by a proxy of the environment and which never do: with a proxy that writes down what it is sent."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from calibadv.http_client import MAY_READ_TOKENS, client_options, is_loopback, keep_direct, route_to
from calibadv.rewards.judge import Endpoint, Judge
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryPolicy
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig

ONCE = RetryPolicy(patience_s=0.0)
FAR = "http://retriever.example/retrieve"  # a reserved name: nothing answers there but by the proxy


class Listener(http.server.ThreadingHTTPServer):
    """A server, or a proxy, that answers each POST with no documents and keeps its first line and its token."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.seen.append((self.path, self.headers.get("authorization")))
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"result": [[]]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Listener:
    """The listener as the proxy of the environment, for every scheme."""
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, listener.url)
    return listener


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == MAY_READ_TOKENS:
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.shutdown()
    made.server_close()


# ---- the route ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "[::1]", "a.localhost", "0.0.0.0"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.usefixtures("proxy")
def test_loopback_is_never_proxied(host: str, scheme: str) -> None:
    assert route_to(f"{scheme}://{host}:8000/retrieve").proxy == ""


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_is_found_in_every_variable_and_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://user:secret@10.0.0.1:3128")
    route = route_to(FAR)
    assert route.proxy == "http://user:secret@10.0.0.1:3128"
    assert str(route) == f" by the proxy http://10.0.0.1:3128 ({variable})"
    monkeypatch.setenv(variable, "10.0.0.1:3128")
    assert route_to(FAR).proxy == "http://10.0.0.1:3128"


def test_a_scheme_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://10.0.0.1:3128")
    assert route_to(FAR).proxy == ""
    assert route_to("https://retriever.example").proxy == "http://10.0.0.1:3128"


@pytest.mark.parametrize(
    ("url", "excepted"),
    [
        ("http://retriever.example/retrieve", "retriever.example"),
        ("http://a.corp.example/x", ".corp.example"),
        ("http://a.corp.example/x", "corp.example"),
        ("http://10.1.2.3:8000/x", "10.0.0.0/8"),
        ("http://10.1.2.3:8000/x", "10.1.2.3"),
        ("http://retriever.example:8000/x", "retriever.example:8000"),
        ("http://retriever.example/x", "*"),
        ("http://[fd00::1]/x", "fd00::/8"),
    ],
)
@pytest.mark.usefixtures("proxy")
def test_what_no_proxy_names_is_asked_directly(monkeypatch: pytest.MonkeyPatch, url: str, excepted: str) -> None:
    assert route_to(url).proxy
    monkeypatch.setenv("NO_PROXY", f"other.example, {excepted}")
    assert not route_to(url).proxy


@pytest.mark.usefixtures("proxy")
def test_a_proxy_reads_no_token_unless_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    assert route_to(FAR, token=True).spared
    assert route_to(FAR, token=True).proxy == ""
    assert route_to("https://retriever.example", token=True).proxy  # it passes on what it cannot read
    monkeypatch.setenv(MAY_READ_TOKENS, "1")
    assert route_to(FAR, token=True).proxy


def test_a_socks_proxy_without_its_module_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:secret@127.0.0.1:1080")
    assert route_to("http://127.0.0.1:8000", socks="no_such_module").proxy == ""
    with pytest.raises(ValueError, match=r"all_proxy = socks5://127\.0\.0\.1:1080 is a SOCKS proxy") as caught:
        route_to(FAR, socks="no_such_module")
    assert "add retriever.example to NO_PROXY" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert route_to(FAR, socks="json").proxy.startswith("socks5://")


def test_loopback_is_told_from_other_hosts() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert not any(is_loopback(host) for host in ("10.0.0.1", "localhost.example", "", "127.0.0.1.example"))


@pytest.mark.usefixtures("proxy")
def test_libraries_are_kept_from_the_proxy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests.utils import should_bypass_proxies

    monkeypatch.setenv("no_proxy", "corp.example")
    keep_direct("http://mlflow.example:5000", token=True)
    keep_direct("http://other.example")  # without a token the proxy may have it
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "corp.example,127.0.0.1,localhost,::1,mlflow.example"
    for url in ("http://127.0.0.1:5000", "http://localhost:5000", "http://mlflow.example:5000"):
        assert should_bypass_proxies(url, None)
    assert not should_bypass_proxies("http://other.example", None)


# ---- the clients -------------------------------------------------------------------------------------------------


async def test_a_search_server_on_loopback_is_asked_past_the_proxy(
    proxy: Listener, server: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_TOKEN", "s3cret")
    assert await http_search(SearchConfig(url=f"{server.url}/retrieve", token_env="SEARCH_TOKEN"), ONCE)("who?") == ()
    assert server.seen == [("/retrieve", "Bearer s3cret")]
    assert proxy.seen == []


async def test_a_search_server_elsewhere_is_asked_by_the_proxy_without_a_token_only(
    proxy: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await http_search(SearchConfig(url=FAR), ONCE)("who?") == ()
    assert proxy.seen == [(FAR, None)]
    monkeypatch.setenv("SEARCH_TOKEN", "s3cret")
    with pytest.raises(SearchFailed, match="did not answer"):  # there is no such host
        await http_search(SearchConfig(url=FAR, token_env="SEARCH_TOKEN"), ONCE)("who?")
    assert proxy.seen == [(FAR, None)]


async def test_the_proxy_is_named_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(SearchFailed, match=r"retrieve by the proxy http://127.0.0.1:1 \(http_proxy\) did not answer"):
        await http_search(SearchConfig(url=FAR), ONCE)("who?")


async def test_a_socks_proxy_does_not_hinder_loopback(server: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    assert await http_search(SearchConfig(url=f"{server.url}/retrieve"), ONCE)("who?") == ()


async def test_the_judge_takes_the_same_way(
    proxy: Listener, server: Listener, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "s3cret")
    await Judge(Endpoint(f"{server.url}/v1", "m", retries=0)).ask(["?"])
    assert server.seen == [("/v1/chat/completions", "Bearer s3cret")]
    await Judge(Endpoint("http://judge.example/v1", "m", retries=0, timeout_s=5)).ask(["?"])
    assert proxy.seen == []
    monkeypatch.delenv("JUDGE_API_KEY")
    await Judge(Endpoint("http://judge.example/v1", "m", retries=0)).ask(["?"])
    assert [path for path, _ in proxy.seen] == ["http://judge.example/v1/chat/completions"]
    assert f"at http://judge.example/v1 by the proxy {proxy.url} (http_proxy) failed" in caplog.text


def test_a_client_trusts_the_certificates_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert client_options("https://retriever.example")["trust_env"] is False
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(FileNotFoundError):
        client_options("https://retriever.example")
