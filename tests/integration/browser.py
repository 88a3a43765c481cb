"""A real browser without a window, and what the tests do with it, in their words."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
    "--force-prefers-reduced-motion",  # a page that is still scrolling takes no click
)


# WCAG 2 contrast of every visible text against what lies behind it: at least 4.5 to 1.
CONTRASTS = """
const part = (value) => { const c = value / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const read = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = read(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const poor = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const hidden = !element.checkVisibility() || element.closest(".hidden, .skip, script");
  if (hidden || !walker.currentNode.data.trim()) continue;
  const [high, low] = [light(read(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) poor.add(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
}
return [...poor];
"""


class Browser:
    """What the tests do with a browser, in their words."""

    def __init__(self, profile: Path, url: str) -> None:
        chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or chromedriver is None:
            pytest.skip("chromium and chromium-driver are not installed")
        options = ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options=options, service=Service(executable_path=chromedriver))
        self.driver.set_page_load_timeout(60)
        self.url = url

    def open(self, path: str = "/") -> None:
        self.driver.get(self.url + path)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        """Return what a person can read there; looks again if the page exchanged that part meanwhile."""
        for _ in range(5):
            with contextlib.suppress(StaleElementReferenceException):
                return str(self.one(selector).text)
        raise AssertionError(f"{selector} is exchanged all the time")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all that match, of one moment."""
        return list(self.script(f"return [...document.querySelectorAll({selector!r})].map((item) => item.innerText)"))

    def script(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def mark(self) -> None:
        """Leave a mark that a reload would wipe out."""
        self.script("window.mark = 'here'")

    def is_marked(self) -> bool:
        return self.script("return window.mark") == "here"

    def complaints(self) -> list[str]:
        """Return what the browser complained about, blocked scripts and missing files among it."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def close(self) -> None:
        self.driver.quit()
