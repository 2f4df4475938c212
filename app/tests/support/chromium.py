"""A real Chromium without a window, in front of a real server process around the stub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Server, Start
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from waiting import eventually

DRIVER = "/usr/bin/chromedriver"  # Debian's chromium-driver; named, or selenium would look for one to download
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1180,1000")


class Page:
    """The page as a person has it before them."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, server: Server) -> None:
        self.browser.get(server.url)

    def phone(self, height: int = 812) -> None:
        self.devtools("Emulation.setDeviceMetricsOverride", width=375, height=height, deviceScaleFactor=2, mobile=True)

    def media(self, feature: str, value: str) -> None:
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])

    def devtools(self, command: str, **parameters: Any) -> Any:  # noqa: ANN401  # any JSON
        return self.browser.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *arguments: Any) -> Any:  # noqa: ANN401
        return self.browser.execute_script(script, *arguments)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def shows(self, selector: str, text: str) -> None:
        eventually(lambda: text in self.text(selector), f"{selector} shows {text!r}")

    def is_ready(self) -> None:
        self.shows("#status", "Ready")

    def answered(self) -> str:
        eventually(lambda: self.one("#result").get_attribute("data-state") == "answer", "an answer")
        return self.text("#label")

    def answers(self, script: str) -> None:
        """Every later page changes what it is answered by this function of (path, json, headers)."""
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source=ALTER % script)

    def complaints(self) -> list[str]:
        """What the browser logged: refused by the policy, not found, thrown and not caught."""
        return [entry["message"] for entry in self.browser.get_log("browser")]


# For what the service answers only beside a Redis or after a benchmark: a header, a field.
ALTER = """
const plain = window.fetch;
window.fetch = async (...request) => {
  const response = await plain(...request);
  const [body, headers] = [await response.clone().json().catch(() => null), new Headers(response.headers)];
  if (body === null) return response;
  (%s)(request[0], body, headers);
  return new Response(JSON.stringify(body), { status: response.status, headers });
};
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(DRIVER)) as browser:
        yield browser


@pytest.fixture
def page(chromium: Chrome) -> Iterator[Page]:
    """A page in a tab of its own, which has nothing from the test before."""
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.get_log("browser")
    yield Page(chromium)
    chromium.close()
    chromium.switch_to.window(first)


@pytest.fixture
def server(start: Start) -> Server:
    """One model, of 8 x 8 grey pixels."""
    return start()


@pytest.fixture
def two_models(start: Start, tmp_path: Path) -> Server:
    """`digits`, as above, and `colours`, of 32 x 32 coloured ones."""
    file = tmp_path / "models.yaml"
    file.write_text(json.dumps({"models": [{"dir": "/models/digits"}, {"dir": "/models/colours"}]}))
    return start("models", GENAI_MODELS_FILE=str(file))
