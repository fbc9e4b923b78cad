"""A real browser for the tests of pages; where there is none, they are skipped."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("playwright", reason="tests of pages need playwright: pip install 'cwjax[test]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("tests of pages need a chromium, such as Debian's", allow_module_level=True)

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402 - only where it is


@contextmanager
def launched(*arguments: str) -> Iterator[Browser]:
    """A browser for the time of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


def view_of(page: Page) -> dict[str, object]:
    """What the view of a transcript shows, all of its rows drawn."""
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    return page.evaluate(
        """() => {
            const text = (one) => one.textContent.replace(/\\s+/g, " ").trim();
            const found = {};
            for (const id of ["headline", "without", "with", "used", "strongest", "shares", "heard", "changes"]) {
                found[id] = text(document.getElementById(id));
            }
            found.marked = [...document.querySelectorAll(".changed, mark")].map(text);
            found.tints = [...document.querySelectorAll(".used")].map((one) => one.style.getPropertyValue("--share"));
            found.rows = [...document.querySelectorAll(".row")].map(text);
            found.places = [...document.querySelectorAll(".row .place")].map((one) => [one.style.left, one.style.top]);
            found.maps = [...document.querySelectorAll("canvas")].map((one) => [one.ariaLabel, one.toDataURL()]);
            return found;
        }"""
    )


def sticks_out(page: Page) -> bool:
    """Whether a page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def is_dark(page: Page) -> bool:
    """Whether the paper is."""
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", paper)[:3])) < 200
