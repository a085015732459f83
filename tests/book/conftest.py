"""The browser of the tests that carry the marker `pages`."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, the system's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    path = next(filter(None, found), None)
    if path is None:
        pytest.fail(
            "No browser found: install Chromium (Debian: `apt-get install chromium`), "
            "or set CHROMIUM to the path of a Chromium or Chrome.",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()
