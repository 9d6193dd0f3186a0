"""A real Chromium that opens a report from the disk, as its reader does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_SECONDS = 60


class Reader:
    """Opens pages and looks at them."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, *, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> None:
        """Open a page in a window of that width, on a system in that scheme, and wait until its plots are drawn."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.prefer(scheme)
        self.driver.get(path.resolve().as_uri())
        self.wait("return [...document.querySelectorAll('.plot')].every((p) => p._fullLayout || p.closest('[hidden]'))")

    def prefer(self, scheme: Literal["light", "dark"]) -> None:
        """What the system's settings say of light and dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> None:
        """Wait until a piece of JavaScript returns something true."""
        WebDriverWait(self.driver, TIMEOUT_SECONDS, 0.05).until(lambda driver: driver.execute_script(script))

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text_of(self, selector: str) -> list[str]:
        """The text of each visible element of a CSS selector."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element.text for element in found if element.is_displayed()]

    def complaints(self) -> list[str]:
        """What the console has gathered since the last call, without what the driver of the software GPU remarks."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if "GL Driver Message" not in entry["message"]]


@contextmanager
def open_browser(folder: Path) -> Iterator[Reader]:
    """Start Chromium with a new profile in `folder`; skips the test where it is not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = Options()
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Reader(browser)
    finally:
        browser.quit()
