"""The script of the manual, as a page of a project runs it: sends a task and polls until it is done."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from tests import services
from tests.db import viewkit
from tests.db.viewkit import SEES, SENDS, VALUES, user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.db.viewurls")]

MANUAL = Path(__file__).parents[2] / "docs" / "reference" / "views.rst"
# What a browser has, and node has not: the page's cookies and its own address.
BROWSER = """
const document = {cookie: "other=1; csrftoken=%(token)s"};
const asked = globalThis.fetch;
globalThis.fetch = (path, options) => asked("%(server)s" + path, {
    ...options, headers: {...options.headers, "Cookie": "csrftoken=%(token)s; sessionid=%(session)s"},
});
"""


def script():
    found = re.search(r"\.\. code-block:: javascript\n\n((?:    .*\n|\n)+)", MANUAL.read_text())
    return textwrap.dedent(found.group(1))


def run(call, server, person):
    """Return what *call* of the manual's script gave, as JSON, or the text of its error."""
    client = Client()
    client.force_login(person)
    values = {"token": "t" * 32, "server": server.url, "session": client.cookies["sessionid"].value}
    tell = f"\n{call}.then((task) => console.log(JSON.stringify(task)), (error) => console.log(error.message));"
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", BROWSER % values + script() + tell],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr == ""
    return ran.stdout.strip()


@pytest.fixture(autouse=True)
def app(celery_app):
    if shutil.which("node") is None:
        services.require("node", lambda: (_ for _ in ()).throw(OSError("node is not installed")))
    app = viewkit.register(celery_app)
    # The threads of the server have no app of their own.
    app.set_default()
    app.conf.update(task_always_eager=True, task_store_eager_result=True)
    return app


def test_a_page_sends_a_task_and_polls_for_its_result(live_server):
    person = user("person", SENDS, SEES, VALUES)
    task = json.loads(run('run("/shop/add/2/", {x: 1})', live_server, person))
    assert (task["status"], task["result"]) == ("SUCCESS", 3)


def test_a_page_is_told_why_it_may_not(live_server):
    person = get_user_model().objects.create_user("nobody")
    assert "djcelery.apply_taskstate" in run('run("/shop/add/2/", {x: 1})', live_server, person)
