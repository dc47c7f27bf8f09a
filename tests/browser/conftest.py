"""Debian's Chromium, which loads files only; what a page would fetch, log or open is collected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from opened import Open, Opened
from playwright.sync_api import Browser, sync_playwright
from sppo_operator.report.page import report
from told import NOW, full

CHROMIUM = Path(os.environ.get("SPPO_TEST_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the session: Playwright's event loop runs in this thread as long, and no test could start one of its own.
    if not CHROMIUM.exists():
        pytest.skip(
            f"{CHROMIUM} is not there: install Debian's package chromium, or name another with SPPO_TEST_CHROMIUM"
        )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with everything, answers of a hostile model among it."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(*full(), NOW), "utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the report, or another file, in a window of its own."""
    contexts = []

    def open_page(*, width: int = 1600, scheme: str = "light", path: Path = file, scripts: bool = True) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("requestfailed", lambda request: found.refused.update({request.url: request.failure}))
        found.page.on("console", lambda message: found.messages.append(message.text))
        found.page.on("pageerror", lambda error: found.messages.append(str(error)))
        found.page.on("popup", lambda page: found.windows.append(page.url))
        found.page.on("dialog", lambda dialog: found.windows.append(dialog.message))
        found.page.goto(path.as_uri())
        return found

    yield open_page
    for context in contexts:
        context.close()
