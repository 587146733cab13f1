"""Whoever types what ``docs/quickstart.rst`` says, in an empty folder, gets what it says."""

from __future__ import annotations

import contextlib
import http.cookiejar
import importlib
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests import services
from tests.docs import pages
from tests.services import wait_until

BLOCKS = list(pages.blocks(pages.read("quickstart")))
INSTALL, MAKE, TABLES, PROGRAMS, CELERY = (block.text.splitlines() for block in BLOCKS if not block.language)
FILES = [block for block in BLOCKS if block.language == "python"]
TYPED = next(block.text for block in BLOCKS if block.language == "pycon")
LOGIN = {"username": "ann", "password": "a long enough one"}


class Folder:
    """The empty folder, and what is typed in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running: list[subprocess.Popen] = []
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(path),
            "LANG": "C.UTF-8",
            "C_FORCE_ROOT": "1",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SUPERUSER_EMAIL": "ann@example.com",
            **{f"DJANGO_SUPERUSER_{name.upper()}": value for name, value in LOGIN.items()},
        }

    def type(self, line: str, *more: str) -> str:
        """Run *line* to its end and return what it printed."""
        words = [*shlex.split(line), *more]
        done = subprocess.run(words, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str, *more: str) -> None:
        """Run *line* in a terminal of its own."""
        output = (self.path / f"output{len(self.running)}").open("w")
        with output:
            words = [*shlex.split(line), *more]
            self.running.append(
                subprocess.Popen(
                    words,
                    cwd=self.path,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    def printed(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.path.glob("output*")))

    def write(self, block: pages.Block, text: str) -> None:
        """Write *block* to its file: at the end of one that has something in it."""
        with (self.path / block.file).open("a") as file:
            file.write(text)

    def count(self, query: str) -> int:
        with contextlib.closing(sqlite3.connect(self.path / "db.sqlite3", timeout=30)) as connection:
            return connection.execute(f"SELECT count(*) FROM {query}").fetchone()[0]

    def close(self) -> None:
        for popen in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


@pytest.fixture
def folder(tmp_path):
    opened = Folder(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def prefix():
    """What keeps the queues of this test apart from others on the same Redis."""
    client = services.redis()
    name = f"quickstart-{uuid.uuid4().hex[:8]}."
    yield name
    keys = list(client.scan_iter(f"{name}*", count=1000))
    if keys:
        client.delete(*keys)
    client.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def opener_of(address: str) -> urllib.request.OpenerDirector:
    """Log in to the admin as a browser does."""
    # No proxy: it is on this machine.
    handlers = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({})
    opener = urllib.request.build_opener(*handlers)
    page = opener.open(f"{address}login/", timeout=60).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
    form = urllib.parse.urlencode({**LOGIN, "csrfmiddlewaretoken": token, "next": "/admin/"}).encode()
    opener.open(f"{address}login/", form, timeout=60)
    return opener


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_is_to_be_installed_has_what_the_steps_need():
    assert INSTALL == ['pip install djcelery "celery[redis]"']
    for module in ("django", "celery", "djcelery"):
        importlib.import_module(module)


def test_every_file_is_named():
    assert [block.file for block in FILES] == ["proj/settings.py", "proj/celery.py", "proj/__init__.py", "app/tasks.py"]


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("started_by", ["manage.py", "celery"])
def test_the_steps_lead_to_a_task_that_runs_is_scheduled_and_is_shown(folder, prefix, started_by):
    for line in MAKE:
        folder.type(line)
    for block in FILES:
        text = block.text
        if block.file == "proj/settings.py":
            text, number = re.subn(r"redis://127\.0\.0\.1:6379/0", services.REDIS_URL, text)
            assert number == 1
            text += f'CELERY_BROKER_TRANSPORT_OPTIONS = {{"global_keyprefix": "{prefix}"}}\n'
        folder.write(block, text)

    migrate, create_user = TABLES
    folder.type(migrate)
    # Here nobody answers its questions.
    folder.type(create_user, "--noinput")

    server = PROGRAMS[-1]
    assert server == "python manage.py runserver"
    for line in PROGRAMS[:-1] if started_by == "manage.py" else CELERY:
        assert started_by in line
        folder.start(line)
    port = free_port()
    folder.start(server, f"127.0.0.1:{port}", "--noreload")

    wait_until(lambda: "ready." in folder.printed(), 60, f"the worker:\n{folder.printed()}")
    (folder.path / "typed").write_text(TYPED)
    said = folder.type(
        "python manage.py shell -c", "import doctest; print(doctest.testfile('typed', module_relative=False))"
    )
    assert "TestResults(failed=0, attempted=4)" in said, said

    is_scheduled = "celery_taskmeta WHERE name = 'app.tasks.add' AND status = 'SUCCESS' AND periodic_task = 'sum'"
    wait_until(lambda: folder.count(is_scheduled), 60, "a periodic run")
    wait_until(lambda: folder.count("djcelery_taskstate WHERE state = 'SUCCESS'"), 60, "a task in the monitor")

    wait_until(lambda: is_listening(port), 60, "the web server")
    admin = f"http://127.0.0.1:{port}/admin/"
    opener = opener_of(admin)
    listed = opener.open(f"{admin}djcelery/", timeout=60).read().decode()
    for name in ("overview", "taskstate", "workerstate", "taskmeta", "periodictask"):
        assert f"/admin/djcelery/{name}/" in listed
    assert "app.tasks.add" in opener.open(f"{admin}djcelery/overview/", timeout=60).read().decode()
    # The programs live on.
    assert [popen.poll() for popen in folder.running] == [None] * 4, folder.printed()
