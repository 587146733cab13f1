"""djcelerymon as a real process: pages, camera and control over one broker, its files, its login and its end."""

from __future__ import annotations

import http.cookiejar
import os
import re
import shutil
import signal
import sqlite3
import stat
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing

import pytest

from tests import services
from tests.integration.conftest import CELERY, ROOT
from tests.services import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long]

#: A database of Redis for the tests in which monitor and worker share nothing but the broker's URL.
ALONE_URL = f"{services.REDIS_URL.rpartition('/')[0]}/13"
NOBODY_URL = "redis://127.0.0.1:1/0"
#: A project of people without Django.
PLAIN = """
from celery import Celery

app = Celery("plain")


@app.task(name="plain.add")
def add(x, y):
    return x + y
"""
#: A monitor whose web server loses its socket as soon as somebody asks for a page.
LOST = """
import sys

from djcelery import mon
from djcelery.management import web


class Lost(web._Server):
    def finish_request(self, *args):
        super().finish_request(*args)
        self.socket.close()


web._Server = Lost
mon.main(sys.argv)
"""
READY = "-> evcam"
WORKER_READY = " ready."


class Browser:
    """Somebody who has opened the monitor: keeps cookies, and sends forms with the token that pages have."""

    def __init__(self, root):
        self.root = root
        self.cookies = http.cookiejar.CookieJar()
        # No proxy: it is on this machine.
        handlers = urllib.request.HTTPCookieProcessor(self.cookies), urllib.request.ProxyHandler({})
        self.opener = urllib.request.build_opener(*handlers)
        self.url = self.headers = None

    def get(self, path="/", **query):
        return self._open(f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path, **fields):
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path))[1]
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}, doseq=True)
        return self._open(path, data.encode())

    def _open(self, path, data=None):
        with self.opener.open(self.root + path, data, timeout=60) as response:
            self.url, self.headers = response.url, response.headers
            return response.read().decode()

    def login(self, password):
        self.post("/login/", username="admin", password=password, next="/")
        return self.url == f"{self.root}/"


class Monitor:
    """Starts ``python -m djcelery.mon`` in an empty folder."""

    def __init__(self, programs):
        self.programs = programs
        self.folder = programs.cwd = programs.root / "monitor"
        self.folder.mkdir()
        # The project's settings are not for it.
        path = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, sys.path)]))
        names = ("PATH", "HOME", "LANG", "PYTHONUNBUFFERED", programs.mark.partition("=")[0])
        self.env = {name: programs.env[name] for name in names} | {"PYTHONPATH": path}
        self.programs_env = programs.env

    def start(self, *words, ready=READY, program=("-m", "djcelery.mon"), **env):
        before, self.programs.env = self.programs.env, self.env
        try:
            return self.programs._start([sys.executable, *program, *words], ready, env)
        finally:
            self.programs.env = before

    def rows(self, query):
        with closing(sqlite3.connect(self.folder / "djcelerymon.db", timeout=30)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def monitor(programs):
    return Monitor(programs)


@pytest.fixture
def alone():
    """The URL of an empty broker."""
    services.redis().close()
    import redis

    with redis.Redis.from_url(ALONE_URL) as client:
        client.flushdb()
        yield ALONE_URL
        client.flushdb()


def url(running):
    return re.search(r"-> djcelerymon: (http://\S+?)/? \(", running.text())[1].removesuffix("/admin")


def password(running):
    return re.search(r"password\s+(\w+)", running.text())[1]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def assert_only_the_owner_reads(monitor):
    with closing(sqlite3.connect(monitor.folder / "djcelerymon.db")) as connection:
        assert connection.execute("SELECT count(*) FROM auth_user").fetchone() == (1,)
        # The write-ahead log has rows, too; it is there while somebody has the database open.
        modes = {path.name: mode(path) for path in monitor.folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"djcelerymon.db", "djcelerymon.db-wal", "djcelerymon.db.key"} <= set(modes)


def assert_it_ended_well(running, number=signal.SIGTERM):
    running.send(number)
    assert running.end() == 0, running.text()
    assert "Traceback" not in running.text()


def test_tasks_and_workers_of_a_broker_show_and_obey_and_a_restart_keeps_them(programs, monitor, alone):
    first = monitor.start("0", "-b", alone, "-F", "0.3")
    assert_only_the_owner_reads(monitor)
    browser = Browser(url(first))
    assert not browser.login("guessed")
    assert browser.login(password(first))
    assert {cookie.name for cookie in browser.cookies} == {"djcelerymon_session", "djcelerymon_csrf"}
    browser.get("/djcelery/taskstate/")
    assert browser.headers["X-Frame-Options"] == "DENY"

    # Nothing of Django, and nothing set but the broker.
    (programs.project / "plain.py").write_text(PLAIN)
    line = [CELERY, "-A", "plain", "-b", alone]
    env = {"PYTHONPATH": str(programs.project)}
    worker = programs._start([*line, "worker", "-E", "-c", "1", "-l", "info"], WORKER_READY, env)
    sent = programs._start([*line, "call", "plain.add", "--args", "[2, 2]"], None, env)
    assert sent.end() == 0
    task_id = sent.text().split()[-1]

    def page_has(path, *texts):
        return lambda: all(text in browser.get(path) for text in texts)

    wait_until(page_has("/djcelery/taskstate/", "plain.add", task_id, "SUCCESS"), 60, "the task on its page")
    hostname = monitor.rows("SELECT hostname FROM djcelery_workerstate")[0][0]
    wait_until(page_has("/djcelery/workerstate/", hostname), 60, "the worker on its page")
    assert "plain.add" in browser.get("/djcelery/overview/")
    # The key of the page is the queue's name: it asks the same broker.
    assert "celery" in browser.get("/djcelery/overview/figures/")

    key = monitor.rows("SELECT id FROM djcelery_workerstate")[0][0]
    asked = {"action": "shutdown_nodes", "_selected_action": key, "index": 0}
    assert "Shut this worker down?" in browser.post("/djcelery/workerstate/", **asked)
    browser.post("/djcelery/workerstate/", **asked, confirmed="yes", post="yes")
    assert worker.end() == 0
    assert_it_ended_well(first)

    second = monitor.start("0", "-b", alone, "-F", "0.3")
    assert "password" not in second.text()
    # The same key: whoever was in still is.
    browser.root = url(second)
    assert task_id in browser.get("/djcelery/taskstate/")
    port = browser.root.rpartition(":")[2]
    third = monitor.start(port, "-b", alone, ready=None)
    assert third.end() == 1
    assert f"127.0.0.1:{port}: the port is in use" in third.text()
    assert "Traceback" not in third.text()
    assert browser.get("/djcelery/taskstate/")
    assert_it_ended_well(second, signal.SIGINT)


def test_styles_are_served_and_strangers_see_a_login_alone(monitor):
    running = monitor.start("0", "-b", NOBODY_URL)
    browser = Browser(url(running))
    assert "--primary" in browser.get("/static/admin/css/base.css")
    assert browser.get("/static/djcelery/style.css")
    for path in ("/", "/djcelery/taskstate/", "/djcelery/overview/", "/auth/user/"):
        assert 'name="password"' in browser.get(path)
    for path in ("/static/../djcelerymon.db", "/static/%2e%2e/djcelerymon.db", "/static/../../djcelerymon.db.key"):
        assert _status(browser, path) == 400
    assert 'name="password"' in browser.get("/djcelerymon.db")
    # Another site's name that leads here (DNS rebinding).
    request = urllib.request.Request(f"{browser.root}/login/", headers={"Host": "evil.example.com"})
    assert _status(browser, request) == 400


def _status(browser, where):
    where = where if isinstance(where, urllib.request.Request) else f"{browser.root}{where}"
    with pytest.raises(urllib.error.HTTPError) as answer:
        browser.opener.open(where, timeout=60)
    answer.value.close()
    return answer.value.code


def test_without_its_broker_it_serves_pages_and_ends_well(monitor):
    running = monitor.start("0", "-b", NOBODY_URL)
    running.wait_for("can't be reached")
    browser = Browser(url(running))
    assert browser.login(password(running))
    assert browser.get("/djcelery/overview/")
    assert_it_ended_well(running, signal.SIGINT)


def test_a_web_server_that_dies_ends_the_camera_too(monitor):
    script = monitor.folder / "lost.py"
    script.write_text(LOST)
    running = monitor.start("0", "-b", NOBODY_URL, program=[str(script)])
    assert Browser(url(running)).get("/login/")
    assert running.end() == 1
    assert "The web server has ended" in running.text()
    assert " has stopped." in running.text()
    assert "Traceback" not in running.text()


def test_a_config_module_of_celery_says_where_the_tasks_are(programs, monitor):
    services.redis().close()
    prefix = programs.env["BROKER_PREFIX"]
    (monitor.folder / "watched.py").write_text(
        f"broker_url = {services.REDIS_URL!r}\n"
        f"broker_transport_options = {{'global_keyprefix': {prefix!r}}}\n"
        f"event_exchange = '{prefix}events'\nevent_queue_prefix = '{prefix}celeryev'\n"
    )
    monitor.start("0", "-F", "0.3", ready="Connected to", CELERY_CONFIG_MODULE="watched")
    programs.env["BROKER_URL"] = services.REDIS_URL
    programs.start("celeryd", "-E", "-l", "info", ready=WORKER_READY, DJANGO_SETTINGS_MODULE="legacyproj.settings")
    task_id = programs.call("shop.tasks.add", 2, 2)
    query = "SELECT task_id, state FROM djcelery_taskstate"
    wait_until(lambda: monitor.rows(query) == [(task_id, "SUCCESS")], 60, "the task")


def test_a_new_password_is_for_the_monitor_that_runs(monitor):
    running = monitor.start("0", "-b", NOBODY_URL)
    old = password(running)
    other = monitor.start("--reset-password", ready=None)
    assert other.end() == 0, other.text()
    browser = Browser(url(running))
    assert not browser.login(old)
    assert browser.login(password(other))


def test_the_database_of_an_old_monitor_is_taken_over(monitor):
    shutil.copy(ROOT / "tests" / "legacy" / "data" / "django-celery-2.5.5.sqlite", monitor.folder / "djcelerymon.db")
    before = monitor.rows("SELECT count(*) FROM djcelery_taskstate")
    assert before[0][0]
    running = monitor.start("0", "-b", NOBODY_URL)
    assert monitor.rows("SELECT count(*) FROM djcelery_taskstate") == before
    browser = Browser(url(running))
    login = re.search(r"password\s+(\w+)", running.text())
    if login is None:
        browser.login(password(monitor.start("--reset-password", ready="password ")))
    else:
        assert browser.login(login[1])
    assert browser.get("/djcelery/taskstate/")


def test_what_is_no_database_is_an_error_and_stays(monitor):
    path = monitor.folder / "djcelerymon.db"
    path.write_text("my notes, " * 1000)
    running = monitor.start(ready=None)
    assert running.end() == 1
    assert f"The database {path} can't be used" in running.text()
    assert "Traceback" not in running.text()
    assert path.read_text() == "my notes, " * 1000


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_manage_py_serves_the_project_and_takes_its_snapshots(programs):
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.website"
    programs.run("migrate", "-v0")
    running = programs.start("djcelerymon", "0", "-f", "0.3", ready="Connected to")
    browser = Browser(url(running))
    assert "--primary" in browser.get("/static/admin/css/base.css")
    assert 'name="password"' in browser.get("/admin/")
    programs.start("celeryd", "-E", "-l", "info", ready=WORKER_READY)
    task_id = programs.call("shop.tasks.add", 2, 2)
    query = "SELECT state FROM djcelery_taskstate WHERE task_id = ?"
    wait_until(lambda: programs.rows(query, task_id) == [("SUCCESS",)], 60, "the task")
    assert_it_ended_well(running)
    assert programs.rows("SELECT name FROM djcelery_camerastate")[0][0].startswith("djcelerymon@")


def test_the_command_refuses_a_project_without_pages(programs):
    done = programs.run("djcelerymon")
    assert done.returncode == 1
    assert "python -m djcelery.mon" in done.stderr
    assert "Traceback" not in done.stderr
