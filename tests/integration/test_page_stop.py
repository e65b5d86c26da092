"""Stop, in a real browser: an answer appears as it is written, ends in the middle, and its place is another's."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.integration.browser import a_browser
from tests.serve.world import InProcess, Slow, listening, parts

pytestmark = pytest.mark.integration


async def test_stop_ends_an_answer_that_is_written_and_frees_its_place(tmp_path: Path) -> None:
    engine, loop = Slow(), asyncio.get_running_loop()

    def walk(url: str) -> None:
        with a_browser() as browser:
            page = browser.new_page()
            page.goto(url)
            ask, stop = page.get_by_role("button", name="Ask"), page.get_by_role("button", name="Stop")
            expect(stop).to_be_disabled()
            page.get_by_label("Your question").fill("Where was Ada born?")
            ask.click()
            expect(page.locator("#answer")).to_have_text("O")  # and the engine writes no more
            assert engine.inside == 1
            stop.click()
            expect(page.locator("#status")).to_have_text("Stopped.")
            expect(page.locator("#answer")).to_have_text("O")
            expect(stop).to_be_disabled()
            expect(page.locator("#error")).to_be_hidden()
            deadline = time.monotonic() + 20
            while engine.inside:
                assert time.monotonic() < deadline, "the rollout goes on"
                time.sleep(0.05)
            loop.call_soon_threadsafe(engine.was_read.set)
            ask.click()  # the one place is free again
            expect(page.locator("#status")).to_contain_text("Done")
            expect(page.locator("#answer")).to_have_text("Oslo, in Norway")

    async with listening(InProcess(parts(engine)), tmp_path, max_concurrent=1) as url:
        await asyncio.to_thread(walk, url)
