"""The admin and a real worker: what it says of itself when asked, and commands that it obeys."""

from __future__ import annotations

import json

import pytest

from tests.services import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long]

READY = " ready."

WITH_ADMIN = """
from legacyproj.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.admin", "django.contrib.messages"]
"""
ASK = """
import json, time
from djcelery.admin import inspection
began = time.monotonic()
answers = inspection.ask(inspection.DETAILS, [{hostname!r}], wait_s={wait_s})
print(json.dumps([answers.replies, answers.problem, time.monotonic() - began]))
"""
SEND = """
from djcelery.admin import control
print(control.send([control.Step({command!r}, [], kwargs={arguments!r})])[1])
"""


def web(programs, code):
    """Run *code* as the web server's process would; return the last line that it prints."""
    (programs.project / "withadmin.py").write_text(WITH_ADMIN)
    done = programs.run("shell", "-c", code, DJANGO_SETTINGS_MODULE="withadmin")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def ask(programs, hostname, wait_s=60):
    """Return what that worker answers, what is said of it, and how many seconds it took."""
    return json.loads(web(programs, ASK.format(hostname=hostname, wait_s=wait_s)))


def send(programs, command, **arguments):
    """Have the admin send a command to the worker."""
    assert web(programs, SEND.format(command=command, arguments={**arguments, "destination": ["one@here"]})) == ""


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_worker_tells_everything_in_one_round_and_obeys_the_commands_of_the_admin(programs):
    programs.start("celeryd", "-l", "info", "-c1", "-n", "one@here", ready=READY)
    replies, problem, seconds = ask(programs, "one@here")
    assert problem == ""
    # One round, which ends with the last answer.
    assert seconds < 30
    told = replies["one@here"]
    assert set(told) == {"stats", "active", "reserved", "scheduled", "active_queues", "registered"}
    assert told["stats"]["pool"]["max-concurrency"] == 1
    assert "shop.tasks.sleepy" in {text.partition(" ")[0] for text in told["registered"]}

    send(programs, "pool_grow", n=2)
    # Deleted by the fixture.
    queue = f"{programs.env['BROKER_PREFIX']}production"
    send(programs, "add_consumer", queue=queue)

    def has_obeyed():
        told = ask(programs, "one@here")[0].get("one@here", {})
        queues = {queue["name"] for queue in told.get("active_queues") or ()}
        return queue in queues and len(told["stats"]["pool"]["processes"]) == 3

    wait_until(has_obeyed, 60, "the worker to obey")
    send(programs, "cancel_consumer", queue=queue)
    send(programs, "time_limit", task_name="shop.tasks.sleepy", soft=1.0, hard=2.0)
    programs.running[0].wait_for("New time limits for tasks of type shop.tasks.sleepy: soft=1.0 hard=2.0")
    assert ask(programs, "nobody@here", wait_s=0.9)[0] == {}
    send(programs, "shutdown")
    assert programs.running[0].end() == 0
