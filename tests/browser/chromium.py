"""A real Chromium, the one that is on PATH. Playwright drives it and brings none along."""

import contextlib
import shutil
from collections.abc import Generator

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MISSING = "The browser tests did not run: no Chromium is on PATH (Debian's package chromium)"


def path() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextlib.contextmanager
def running() -> Generator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path(), args=FLAGS, chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()
