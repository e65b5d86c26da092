"""A real browser for tests of pages: Chromium or Chrome, wherever this machine has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@contextmanager
def a_browser() -> Iterator[Browser]:
    """A headless one. The test is skipped, loudly, where there is none."""
    named = os.environ.get("CALIBADV_BROWSER", "")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            "NO BROWSER HERE, so that the page is NOT TESTED: install Chromium (scripts/browser.sh does on "
            "Debian and Ubuntu), or name one in CALIBADV_BROWSER"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()
