"""The user's functions are tried before a run, and what cannot be one is refused with its setting's name."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from calibadv.cluster.factories import outcome_of
from calibadv.config import Config, load_config
from calibadv.training.user_functions import code_digests, right_answer, try_user_code
from tests.build import QUESTION

SURROGATES = """
import torch
from calibadv.surrogates import Surrogate

def right(tokens):
    return Surrogate(tokens.log_ratio().exp() * tokens.advantages_N)

def a_sum(tokens):
    return Surrogate((tokens.log_ratio().exp() * tokens.advantages_N).sum())

def bare(tokens):
    return tokens.advantages_N * tokens.logprobs_N

def deaf(tokens):
    return Surrogate(tokens.advantages_N)

def broken(tokens):
    return tokens.rewards_N
"""


def tried(config: Config) -> None:
    try_user_code(config, config.run_method(), QUESTION)


@pytest.fixture
def surrogates(tmp_path: Path) -> Path:
    file = tmp_path / "surrogates.py"
    file.write_text(SURROGATES, encoding="utf-8")
    return file


def test_a_surrogate_is_tried_and_says_what_gradient_it_gives(
    surrogates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(None, {"learner.surrogate": f"{surrogates}:right"})
    with caplog.at_level(logging.INFO):
        tried(config)
    assert f"learner.surrogate {surrogates}:right: gradients 1 and -1 at advantages 1 and -1" in caplog.text
    assert config.run_method().surrogate is not None
    assert set(code_digests(config)) == {"learner.surrogate"}


METHOD = """
from calibadv.advantages.group import outcome_credit
from calibadv.methods import Method

def brief(question, trajectory):
    return {"answer": trajectory.answer_reward, "turns": -0.25 * len(trajectory.turns)}

def broken(question, trajectory):
    return trajectory.length

def method(broke: bool = False) -> Method:
    return Method("brief", outcome_credit, reward=broken if broke else brief)
"""


def test_a_method_s_own_reward_is_what_its_rollouts_get(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "brief.py"
    file.write_text(METHOD, encoding="utf-8")
    given = {"method.name": f"{file}:method"}
    config = load_config(None, given)
    with caplog.at_level(logging.INFO):
        tried(config)
    # Of a right answer after one search: 1 less a quarter a turn.
    assert f"method.name {file}:method: 0.5 for a right answer to {QUESTION.id}, answer 1, turns -0.5" in caplog.text
    scored = asyncio.run(outcome_of(config, config.run_method())(QUESTION, right_answer(QUESTION)))
    assert (scored.reward, scored.reward_parts) == (0.5, {"answer": 1.0, "turns": -0.5})
    with pytest.raises(ValueError, match=r"method\.name = .*: no reward for a rollout .*AttributeError"):
        tried(load_config(None, given | {"method.params": {"broke": True}}))
    with pytest.raises(ValueError, match=r"reward.outcome = 'em', and method .* has a reward of its own"):
        load_config(None, given | {"reward.outcome": "em"})


def test_a_choice_of_groups_is_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keeps.py"
    file.write_text("def short(group):\n    return False\n\ndef broken(group):\n    return group.size > 1\n")
    with caplog.at_level(logging.INFO):
        tried(load_config(None, {"method.keep": f"{file}:short"}))
    assert f"method.keep {file}:short: a group of one right answer to {QUESTION.id} is left out" in caplog.text
    with pytest.raises(ValueError, match=r"method\.keep = .*broken': AttributeError"):
        tried(load_config(None, {"method.keep": f"{file}:broken"}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a_sum", "expected a calibadv.surrogates.Surrogate with an objective a token"),
        ("bare", "expected a calibadv.surrogates.Surrogate"),
        ("deaf", "expected a calibadv.surrogates.Surrogate"),
        ("broken", "AttributeError: 'PolicyTokens' object has no attribute 'rewards_N'"),
    ],
)
def test_what_is_no_surrogate_is_refused(name: str, said: str, surrogates: Path) -> None:
    config = load_config(None, {"learner.surrogate": f"{surrogates}:{name}"})
    with pytest.raises(ValueError, match=f"learner.surrogate = .*{name}': .*{said}"):
        tried(config)


# ---- a search engine elsewhere -----------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[tuple[str, dict[str, Any]]]:
    """(its address, what it says next and how often it was asked); SearXNG's shape."""
    state: dict[str, Any] = {
        "asked": 0,
        "status": 200,
        "body": {"results": [{"url": "u", "title": "T", "content": "c"}]},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["asked"] += 1
            body = json.dumps(state["body"]).encode()
            self.send_response(state["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/search", state
        server.shutdown()


def of(url: str, **more: Any) -> Config:
    return load_config(None, {"search.url": url, "search.url_shape": "searxng", **more})


def test_an_engine_is_asked_once_and_what_it_found_is_said(
    engine: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    url, state = engine
    with caplog.at_level(logging.INFO):
        tried(of(url))
    assert f"search.url = {url!r}: 1 documents for {QUESTION.text!r}: 'T'" in caplog.text
    assert state["asked"] == 1


@pytest.mark.parametrize(("status", "body"), [(403, {"error": "no JSON here"}), (200, {"hits": []})])
def test_an_engine_that_will_never_answer_so_is_refused(
    status: int, body: dict[str, Any], engine: tuple[str, dict[str, Any]]
) -> None:
    url, state = engine
    state |= {"status": status, "body": body}
    with pytest.raises(ValueError, match=r"search\.url = "):
        tried(of(url))
    assert state["asked"] == 1


def test_an_engine_that_is_down_is_a_warning(
    engine: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    url, state = engine
    state["status"] = 503
    tried(of(url))
    assert "answered 503" in caplog.text
    assert "the run will ask again" in caplog.text


def test_a_begun_ledger_and_a_replay_ask_nothing(engine: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    url, state = engine
    ledger = str(tmp_path / "ledger.sqlite")
    tried(of(url, **{"search.ledger": ledger, "search.ledger_mode": "replay"}))
    Path(ledger).touch()
    tried(of(url, **{"search.ledger": ledger}))
    assert state["asked"] == 0
