"""Debian's Chromium without a window, and what it has to say of the pages that it has shown."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.shared.waiting import CHANGE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # who tests may be root, in a container
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--js-flags=--no-opt",  # no script runs so long that it repays to be compiled again
)
_HIGHEST = 3000
AXE = Path(__file__).parents[1] / "node/node_modules/axe-core/axe.min.js"
"""Looks for what keeps people from using a page, by the rules of WCAG 2 and good practice."""

_SERIOUS = ("serious", "critical")


class Seen(NamedTuple):
    """What the browser asked for since it was last asked, and what it complained of."""

    urls: list[str]
    complaints: list[str]


class Browser:
    """A page, as somebody sees and uses it."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def open(self, url: str) -> None:
        """Show the page at ``url``."""
        self._driver.get(url)

    def resize(self, width: int, *, scheme: str = "light") -> None:
        """Be as wide, in CSS pixels, and as light or dark."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)

    def find(self, selector: str, within: WebElement | None = None) -> WebElement:
        """Return the first element that ``selector`` names, as soon as it is there."""
        found = WebDriverWait(self._driver, CHANGE.seconds).until(
            lambda driver: (within or driver).find_elements("css selector", selector), selector
        )
        return found[0]

    def find_all(self, selector: str) -> list[WebElement]:
        """Return the elements that are there now."""
        return self._driver.find_elements("css selector", selector)

    def press(self, selector: str, within: WebElement | None = None) -> None:
        """Click on it, wherever on the page it is."""
        self.run("arguments[0].click()", self.find(selector, within))

    def click(self, selector: str, within: WebElement | None = None) -> None:
        """Click on it with the mouse: a browser lets only people use the clipboard."""
        element = self.find(selector, within)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what ``script`` returns, which the page's own policy does not bind."""
        return self._driver.execute_script(script, *arguments)

    def clipboard(self) -> str:
        """Return what was copied."""
        permission = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        self._driver.execute_cdp_cmd("Browser.grantPermissions", permission)
        text: str = self._driver.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0], arguments[0])"
        )
        return text

    @property
    def width(self) -> int:
        """How wide the page is, in CSS pixels; more than the window if something is beside it."""
        width: int = self.run("return document.documentElement.scrollWidth")
        return width

    def picture(self, of: WebElement | None = None) -> bytes:
        """Return the page, or the beginning of a part of it, as a PNG."""
        box = "const box = arguments[0].getBoundingClientRect();"
        place = f"{box} return [box.x + scrollX, box.y + scrollY, box.width, box.height]"
        x, y, width, height = self.run(place, of or self.find("html"))
        clip = {"x": x, "y": y, "width": width, "height": min(height, _HIGHEST), "scale": 1}
        taken = self._driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png", "clip": clip}
        )
        return base64.b64decode(taken["data"])

    def barriers(self) -> list[str]:
        """Return what axe-core finds that is serious: each rule, and the elements that break it."""
        self.run(AXE.read_text("utf-8"))
        found = self._driver.execute_async_script("axe.run().then(arguments[0])")
        return [
            f"{rule['id']}: {', '.join(str(node['target']) for node in rule['nodes'])}"
            for rule in found["violations"]
            if rule["impact"] in _SERIOUS
        ]

    def seen(self) -> Seen:
        """Return what was asked for, and complained of, since the last time."""
        messages = [json.loads(line["message"])["message"] for line in self._log("performance")]
        return Seen(
            [
                message["params"]["request"]["url"]
                for message in messages
                if message["method"] == "Network.requestWillBeSent"
            ],
            [line["message"] for line in self._log("browser")],
        )

    def _log(self, name: str) -> Any:
        return self._driver.get_log(name)  # type: ignore[no-untyped-call]  # it is not


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser, without any memory, for one ``with`` block."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(executable_path=str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
