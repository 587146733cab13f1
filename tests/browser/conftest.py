"""The whole of it: a site in headless Chromium, and worker, beat and camera behind it, on Redis and SQLite."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.integration.conftest import Programs, Running, broker_env
from tests.integration.conftest import _clean as clean_broker
from tests.services import wait_until

ROOT = Path(__file__).parents[2]
WORKER, CAMERA = "celery@shop1", "celerycam@shop1"
#: Run in the project, before anything else is.
FILL = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests.browser import site
site.make()
"""
#: What keeps Chromium from looking for hosts that a closed network doesn't have.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en",
    "--hide-scrollbars",
    "--font-render-hinting=none",
)


class Stack:
    """The programs, and what tests ask of them beside what people do in the browser."""

    def __init__(self, programs: Programs):
        self.programs = programs
        self.camera: Running | None = None
        self.url = ""
        self._app: Any = None

    def start(self) -> None:
        env = self.programs.env
        env["DJANGO_SETTINGS_MODULE"] = "legacyproj.website"
        done = self.programs.run("shell", "-c", FILL, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr
        site = self.programs.start("runserver", "--noreload", "--insecure", "127.0.0.1:0")
        self.start_camera(is_awaited=False)
        worker = self.start_worker(WORKER, is_awaited=False)
        beat = self.programs.start(
            "celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", "--pidfile=", "-l", "info"
        )
        site.wait_for("Quit the server")
        self.url = re.search(r"http://127\.0\.0\.1:\d+", site.text()).group()
        self.camera.wait_for("Connected to")
        worker.wait_for(" ready.")
        beat.wait_for("beat: leading")

    def start_camera(self, is_awaited: bool = True) -> None:
        words = ("celerycam", "-f", "1", f"--name={CAMERA}", "--pidfile=", "-l", "info")
        self.camera = self.programs.start(*words, ready="Connected to" if is_awaited else None)

    def start_worker(self, name: str, is_awaited: bool = True) -> Running:
        words = ("celeryd", "-E", "-n", name, "-c", "2", "-l", "info")
        return self.programs.start(*words, ready=" ready." if is_awaited else None)

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Send a task as the project would; return its id."""
        return self.app.send_task(name, args, **options).id

    @property
    def app(self) -> Any:
        if self._app is None:
            from celery import Celery

            env = self.programs.env
            self._app = Celery("people", broker=env["BROKER_URL"], set_as_current=False)
            self._app.conf.broker_transport_options = {"global_keyprefix": env["BROKER_PREFIX"]}
        return self._app

    def state_of(self, task_id: str) -> str | None:
        """Return the state of a task as the camera wrote it."""
        rows = self.programs.rows("SELECT state FROM djcelery_taskstate WHERE task_id = ?", task_id)
        return rows[0][0] if rows else None

    def wait_for_state(self, task_id: str, state: str, timeout_s: float = 30) -> int:
        """Wait until the camera has seen the task in *state*; return the key of its row."""
        wait_until(lambda: self.state_of(task_id) == state, timeout_s, f"{task_id} in {state}")
        return self.programs.rows("SELECT id FROM djcelery_taskstate WHERE task_id = ?", task_id)[0][0]

    def count(self, query: str, *args: Any) -> int:
        return self.programs.rows(f"SELECT count(*) FROM {query}", *args)[0][0]

    def entry(self, name: str) -> str:
        """Return the page of a periodic task."""
        return f"periodictask/{self._key('periodictask WHERE name', name)}/change/"

    def worker(self, name: str) -> str:
        """Return the page of a worker, once the camera has seen it."""
        query = "workerstate WHERE hostname"
        return f"workerstate/{wait_until(lambda: self._key(query, name), 20, f'a row of {name}')}/change/"

    def task(self, task_id: str, state: str) -> str:
        """Return the page of a task, once the camera has seen it in *state*."""
        return f"taskstate/{self.wait_for_state(task_id, state)}/change/"

    def _key(self, query: str, value: str) -> int | None:
        rows = self.programs.rows(f"SELECT id FROM djcelery_{query} = ?", value)
        return rows[0][0] if rows else None

    def close(self) -> None:
        if self._app is not None:
            self._app.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """Everything, started once: it takes longer than a test."""
    programs = Programs(tmp_path_factory.mktemp("browser"), broker_env("redis"))
    made = Stack(programs)
    try:
        made.start()
        yield made
    finally:
        made.close()
        programs.kill()
        clean_broker("redis", programs.env["BROKER_PREFIX"])


@pytest.fixture(scope="session")
def driver():
    """Headless Chromium; see ``require()`` for what happens without it."""

    def start():
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        program, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
        if not (program and chromium):
            raise OSError("Debian's packages chromium and chromium-driver have it")
        options = ChromeOptions()
        options.binary_location = chromium
        for option in (*OPTIONS, f"--user-data-dir={folder}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        return Chrome(options=options, service=Service(program))

    folder = tempfile.mkdtemp(prefix="djcelery-chromium-")
    started = services.require("Chromium", start)
    started.set_page_load_timeout(30)
    yield started
    started.quit()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def browser(driver, stack):
    """A browser where nobody is logged in; fails the test if anything was written to its console."""
    from tests.browser.pages import Browser

    driver.delete_all_cookies()
    opened = Browser(driver, stack.url)
    opened.be()
    opened.complaints()
    yield opened
    assert opened.complaints() == []


@pytest.fixture
def admin(browser):
    """The browser of a superuser."""
    browser.log_in("admin")
    return browser


@pytest.fixture
def pictures(tmp_path):
    """The folder for screenshots: DJCELERY_SCREENSHOTS, or one that is thrown away."""
    folder = Path(os.environ.get("DJCELERY_SCREENSHOTS", tmp_path)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
