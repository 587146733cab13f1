"""A person at a browser: opens pages, reads them, presses what is on them."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.browser import PASSWORD
from tests.services import wait_until

if TYPE_CHECKING:
    # Not there unless the extra "browser" is; these modules are imported all the same.
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

#: Sizes of windows, in pixels.
DESK, PHONE = (1280, 800), (375, 812)
CSS, XPATH = "css selector", "xpath"
#: Where the live details of a worker are shown.
LIVE = "#djcelery-live"


class Answer(NamedTuple):
    """What the site answers to a request that the browser didn't make; ``place`` is where it redirects to."""

    status: int
    place: str
    text: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Browser:
    """Headless Chromium on the pages of the admin. Addresses are relative to that of djcelery's pages."""

    def __init__(self, driver: Chrome, url: str):
        self.driver = driver
        self.admin = f"{url}/admin/"
        self.home = f"{url}/admin/djcelery/"

    # what is asked

    def open(self, path: str = "") -> None:
        self.driver.get(urllib.parse.urljoin(self.home, path))

    def log_in(self, name: str) -> None:
        self.driver.delete_all_cookies()
        self.open("../login/?next=/admin/")
        self.find("#id_username").send_keys(name)
        self.find("#id_password").send_keys(PASSWORD)
        self.press("Log in")
        self.find("#logout-form")

    def ask(self, path: str, data: dict[str, Any] | None = None) -> Answer:
        """Send a request as this person, without the browser.

        With *data* it is a POST, and one that Django's CSRF check passes unless *data* has another token.
        """
        cookies = {cookie["name"]: cookie["value"] for cookie in self.driver.get_cookies()}
        request = urllib.request.Request(urllib.parse.urljoin(self.home, path))
        if data is not None:
            token = cookies.setdefault("csrftoken", "a" * 32)
            data = {"csrfmiddlewaretoken": token, **data}
            request.data = urllib.parse.urlencode(data, doseq=True).encode()
        request.add_header("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()))
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=20) as answer:
                return Answer(answer.status, "", answer.read().decode())
        except urllib.error.HTTPError as answer:
            with answer:
                return Answer(answer.code, answer.headers.get("Location", ""), answer.read().decode())

    # what is seen

    @property
    def path(self) -> str:
        return urllib.parse.urlsplit(self.driver.current_url).path

    @property
    def source(self) -> str:
        return self.driver.page_source

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(CSS, css)

    def find(self, css: str) -> WebElement:
        """Return the first element, once it is there and can be seen."""

        def seen() -> WebElement | None:
            return next((found for found in self.all(css) if found.is_displayed()), None)

        return wait_until(_steady(seen), 10, f"{css} on {self.driver.current_url}")

    def text(self, css: str = "body") -> str:
        """Return the text that can be seen of the first element; "" if it isn't there."""
        found = self.all(css)
        return found[0].text if found else ""

    def texts(self, css: str) -> list[str]:
        return [found.text for found in self.all(css)]

    def see(self, text: str, css: str = "body", timeout_s: float = 20) -> None:
        """Wait until the page, as it is, shows *text*."""
        wait_until(_steady(lambda: text in self.text(css)), timeout_s, f"{text!r} on {self.driver.current_url}")

    def see_at(self, path: str, text: str, css: str = "body", timeout_s: float = 30) -> None:
        """Open the page again and again until it shows *text*."""

        def seen() -> bool:
            self.open(path)
            return text in self.text(css)

        wait_until(seen, timeout_s, f"{text!r} at {path}")

    def row(self, text: str) -> WebElement:
        """Return the row of a list that has *text*."""
        return next(row for row in self.all("#result_list tbody tr") if text in row.text)

    # what is done

    def press(self, label: str) -> None:
        """Press the button, or follow the link, that says *label*."""
        quoted = json.dumps(label)
        path = f"//input[@type='submit' and @value={quoted}] | //button[normalize-space()={quoted}]"
        path += f" | //a[normalize-space()={quoted}]"

        def pressed() -> bool:
            found = [each for each in self.driver.find_elements(XPATH, path) if each.is_displayed()]
            if found:
                found[0].click()
            return bool(found)

        wait_until(_steady(pressed), 10, f"{label!r} on {self.driver.current_url}")

    def ask_worker(self, text: str) -> None:
        """Ask for the live details of the worker whose page this is, until they show *text*.

        A busy worker may be later than the second for which a page waits.
        """

        def told() -> bool:
            self.driver.refresh()
            self.press("Ask the worker")
            wait_until(_steady(lambda: any(word in self.text(LIVE) for word in (text, "Nobody"))), 10, "an answer")
            return text in self.text(LIVE)

        wait_until(told, 60, f"{text!r} in the live details")

    def act(self, text: str, action: str, answer: str | None = None) -> None:
        """Choose *action* for the row of a list that has *text*, and *answer* the page that asks."""
        from selenium.webdriver.support.ui import Select

        self.row(text).find_element(CSS, "input.action-select").click()
        Select(self.find("select[name=action]")).select_by_value(action)
        self.find("button[name=index]").click()
        if answer:
            self.press(answer)

    def actions(self) -> set[str]:
        """Return the actions that the page offers."""
        return {each.get_attribute("value") for each in self.all("select[name=action] option")} - {""}

    # how it looks

    def be(self, size: tuple[int, int] = DESK, is_dark: bool = False, height: int | None = None) -> None:
        """Have the window of a desk or of a phone, in light or in dark."""
        width, usual = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height or usual, "deviceScaleFactor": 1, "mobile": size == PHONE},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def picture(self, path: Path) -> None:
        """Write what can be seen as PNG."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(taken["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser wrote to its console since it was asked last: errors, and what the policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def _steady(probe: Any) -> Any:
    """Return *probe*, false while the page is being replaced."""
    from selenium.common.exceptions import StaleElementReferenceException, WebDriverException

    def asked() -> Any:
        try:
            return probe()
        except StaleElementReferenceException:
            return None
        except WebDriverException as exc:
            if "aborted by navigation" in str(exc):
                return None
            raise

    return asked
