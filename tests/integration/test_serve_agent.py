"""The pocket agent on a real Ray Serve, as `calibadv serve` starts it: OpenAI's client, a lost engine, a browser."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect
from ray import serve

from calibadv.cluster.local_ray import free_ports
from calibadv.data.questions import load_questions
from calibadv.evaluation.models import EvaluatedModel
from calibadv.types import Question
from tests.integration.browser import a_browser
from workflows.serve_agent import app_names, parse_command, serving

pytestmark = pytest.mark.integration

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "serving"


@dataclass(frozen=True)
class Agent:
    """A served agent."""

    asked: EvaluatedModel
    url: str
    openai: OpenAI
    questions: list[Question]
    feedback: Path


@pytest.fixture(scope="module")
def agent(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:  # noqa: ARG001
    base, (port,) = tmp_path_factory.mktemp("serve-agent"), free_ports(1)
    given = {
        "serve.port": port,
        "serve.feedback": base / "feedback.jsonl",
        "run.cache": base / "cache",
        "rollout.engine": "torch",
        "cluster.cpus_per_engine": 0.5,
        "search.retriever": "bm25",  # starts in seconds
        "search.reranker": "none",
        "search.num_cpus": 0.1,
    }
    model = parse_command(["pocket", *(word for key, value in given.items() for word in (f"--{key}", str(value)))])
    with serving(model) as url:
        client = OpenAI(base_url=f"{url}v1", api_key="none", max_retries=0, timeout=120)
        yield Agent(
            model, url, client, load_questions(base / "cache" / "pocket" / "test.jsonl"), base / "feedback.jsonl"
        )


def test_the_official_client_streams_an_answer_with_a_citation(agent: Agent) -> None:
    events = list(agent.openai.responses.create(model="pocket", input=agent.questions[0].text, stream=True))
    whole: Any = events[-1]
    assert (events[0].type, whole.type) == ("response.created", "response.completed")
    deltas = [event for event in events if event.type.endswith("_text.delta")]
    texts = [event for event in events if event.type.endswith("_text.done")]
    assert len(deltas) > len(texts)  # they come as they are written
    for text in texts:
        assert "".join(one.delta for one in deltas if one.item_id == text.item_id) == text.text
    notes = [event.annotation for event in events if event.type == "response.output_text.annotation.added"]
    assert notes
    answer = whole.response.output_text
    assert all(answer.lower() in f"{note.title} {note.passage}".lower() for note in notes if note.status == "cited")
    messages: Any = [{"role": "user", "content": agent.questions[0].text}]
    completion = agent.openai.chat.completions.create(model="pocket", messages=messages)
    assert completion.choices[0].message.content == answer  # greedy, whoever asks
    assert httpx.get(f"{agent.url}readyz").text == "ok\n"


def test_an_agent_at_the_same_port_of_the_cluster_is_refused_and_the_first_one_stays(agent: Agent) -> None:
    port, before = agent.asked.config.serve.port, serve.status().applications.keys()
    with (
        pytest.raises(ValueError, match=rf"at port {port} of this Ray cluster already.* choose another --serve\.port"),
        serving(agent.asked),
    ):
        pass
    assert serve.status().applications.keys() == before == set(app_names(port))
    assert httpx.get(f"{agent.url}readyz").text == "ok\n"


def test_an_engine_that_is_killed_under_load_loses_no_question(agent: Agent) -> None:
    (replica,) = _engines(agent)
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(agent.openai.responses.create, model="pocket", input=question.text)
            for question in agent.questions[:24]
        ]
        asked[0].result()
        os.kill(replica, signal.SIGKILL)
        ended = [one.result() for one in asked]
    assert {response.status for response in ended} <= {"completed", "incomplete", "failed"}
    failed = [response for response in ended if response.status == "failed"]
    assert len(failed) <= 8  # those alone of which something had been said when the engine went
    assert all("was lost while it answered" in response.error.message for response in failed)
    again = agent.openai.responses.create(model="pocket", input=agent.questions[0].text)
    assert again.status == "completed"
    deadline = time.monotonic() + 60  # Ray exports what Serve counts by and by
    while "\nray_serve_" not in (said := httpx.get(f"{agent.url}metrics")).text:
        assert (said.status_code, time.monotonic() < deadline) == (200, True)
        time.sleep(1)


def test_the_page_answers_in_a_browser(agent: Agent) -> None:
    with a_browser() as browser:
        _walk(browser, agent)
    (line,) = [json.loads(line) for line in agent.feedback.read_text().splitlines()]
    assert (line["rating"], line["comment"]) == ("up", "<b>right</b>")


def _walk(browser: Browser, agent: Agent) -> None:
    """Asks, reads, follows a citation, rates; then narrow and dark."""
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(agent.url)
    expect(page.locator("#model")).to_contain_text("pocket", timeout=20_000)
    page.get_by_label("Your question").fill(_answered(agent).text)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Done", timeout=60_000)
    assert page.locator(".search").count() >= 1
    assert page.locator("#answer").inner_text()
    assert page.locator("#citations button").count() >= 1
    page.screenshot(path=_image("page.png"), full_page=True)
    _keeps_nobody_out(page)
    page.locator("#citations button").first.click()
    assert page.locator(".documents li.flash").count() == 1
    assert page.evaluate("document.activeElement.closest('.documents') !== null")
    page.get_by_role("button", name="Yes").click()
    page.get_by_label("Comment").fill("<b>right</b>")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("Kept. Thank you.").wait_for()

    page.set_viewport_size({"width": 360, "height": 800})
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.screenshot(path=_image("page-narrow.png"), full_page=True)
    _keeps_nobody_out(page)

    page.get_by_label("Your question").fill("word " * 3000)
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "characters" in page.get_by_role("alert").inner_text()
    assert [line for line in said if "400" not in line] == []  # nothing that the policy of the page forbids


def _keeps_nobody_out(page: Page) -> None:
    """Labels, roles and contrast, as axe finds them."""
    found = Axe().run(page)
    assert [(each["id"], each["nodes"][0]["html"][:90]) for each in found.response["violations"]] == []


def _answered(agent: Agent) -> Question:
    """A question that the untrained pocket policy happens to answer rightly, from a document that it read."""
    for question in agent.questions[:60]:
        response = agent.openai.responses.create(model="pocket", input=question.text)
        cited = any(
            getattr(annotation, "status", "") == "cited"
            for item in response.output
            if item.type == "message"
            for part in item.content
            if part.type == "output_text"
            for annotation in part.annotations
        )
        if cited and response.output_text in question.golden_answers:
            return question
    pytest.fail("none of 60 questions was answered rightly")


def _image(name: str) -> str:
    """Where a screenshot goes: beside the test, unless those of the docs are asked for."""
    folder = IMAGES if os.environ.get("CALIBADV_SCREENSHOTS") else Path(os.environ.get("TMPDIR", "/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / name)


def _engines(agent: Agent) -> list[int]:
    """Processes of the agent's engines, on the Ray that this process has started."""
    app, _ = app_names(agent.asked.config.serve.port)
    name = f"ServeReplica:{app}:policy"
    return [child.pid for child in psutil.Process().children(recursive=True) if name in " ".join(child.cmdline())]
