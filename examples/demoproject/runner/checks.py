"""What must be in the database, and in the admin, once the demo has run for a while."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from celery import states
from django.conf import settings
from django.db.models import Count

from demoproject.celery import app
from djcelery.models import PeriodicTask, TaskMeta, TaskState, WorkerState
from runner.load import Load, saved_groups
from runner.processes import Process

PERIODIC_NAME, PERIODIC_ENTRY = next(iter(settings.CELERY_BEAT_SCHEDULE.items()))


@dataclass
class Check:
    """One thing that was looked at."""

    ok: bool
    text: str


@dataclass
class Site:
    """The address of the admin and who may enter it."""

    port: int
    user: str
    password: str

    @property
    def admin(self) -> str:
        """The address of the admin."""
        return f"http://127.0.0.1:{self.port}/admin/"


def run(load: Load, processes: list[Process], site: Site) -> list[Check]:
    """Return every check, made now."""
    return [
        *of_load(load),
        *of_results(),
        of_schedule(),
        of_periodic_results(),
        *of_snapshots(),
        of_remote_control(),
        of_admin(site),
        of_output(processes),
    ]


def of_load(load: Load) -> Iterator[Check]:
    """Compare everything that was sent with what came out of it, kind by kind."""
    kinds: dict[str, list[bool]] = {}
    for sent in load.sent:
        kinds.setdefault(sent.kind, []).append(sent.right)
    for kind, right in kinds.items():
        yield Check(all(right), f"{kind}: {sum(right)} of {len(right)} have the right outcome")
    wrong = next((sent for sent in load.sent if sent.outcome is not None and not sent.right), None)
    if wrong is not None:
        yield Check(False, f"{wrong.what} gave {wrong.outcome!r} instead of {wrong.expected!r}")


def of_results() -> Iterator[Check]:
    """Look at the result tables."""
    found = dict(TaskMeta.objects.values_list("status").annotate(Count("pk")))
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found.items())) or "none"
    wanted = {states.SUCCESS, states.FAILURE, states.RETRY}
    yield Check(wanted <= found.keys(), f"results in TaskMeta: {counts}")
    groups = saved_groups()
    yield Check(groups > 0, f"saved groups in TaskSetMeta: {groups}")


def of_schedule() -> Check:
    """Look at what beat wrote about the periodic task."""
    row = PeriodicTask.objects.filter(name=PERIODIC_NAME).first()
    if row is None:
        return Check(False, f"no PeriodicTask {PERIODIC_NAME!r}")
    ok = row.last_run_at is not None and row.total_run_count > 0
    return Check(ok, f"PeriodicTask {PERIODIC_NAME!r}: ran {row.total_run_count} times, last at {row.last_run_at}")


def of_periodic_results() -> Check:
    """Look for results of the periodic task; the camera knows the ids of its runs."""
    runs = TaskState.objects.filter(name=PERIODIC_ENTRY["task"]).values_list("task_id", flat=True)
    count = TaskMeta.objects.filter(task_id__in=list(runs), status=states.SUCCESS).count()
    return Check(count > 0, f"results of {PERIODIC_NAME!r} in TaskMeta: {count}")


def of_snapshots() -> Iterator[Check]:
    """Look at what the camera wrote."""
    found = Counter(TaskState.objects.values_list("state", flat=True))
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found.items())) or "none"
    yield Check({states.SUCCESS, states.FAILURE} <= found.keys(), f"snapshots in TaskState: {counts}")
    retried = TaskState.objects.filter(retries__gt=0).count()
    yield Check(retried > 0, f"snapshots of retried tasks: {retried}")
    workers = list(WorkerState.objects.all())
    names = ", ".join(worker.hostname for worker in workers) or "none"
    yield Check(any(worker.is_alive() for worker in workers), f"living workers in WorkerState: {names}")


def of_remote_control() -> Check:
    """Ask the workers for a sign of life over the broker."""
    answers = app.control.ping(timeout=2)
    return Check(bool(answers), f"workers that answer a ping: {len(answers)}")


def of_admin(site: Site) -> Check:
    """Log in with the printed password and open the lists."""
    pages = ("djcelery/taskstate/", "djcelery/workerstate/", "djcelery/periodictask/", "shop/order/")
    try:
        browser = log_in(site)
        missing = [page for page in pages if not _opens(browser, site.admin + page)]
    except (OSError, ValueError) as exc:
        return Check(False, f"the login at {site.admin} failed: {exc}")
    if missing:
        return Check(False, f"these pages of the admin don't open: {', '.join(missing)}")
    return Check(True, f"the admin's login works and {len(pages)} lists open")


def log_in(site: Site) -> urllib.request.OpenerDirector:
    """Return a browser of sorts that is logged in.

    Raises:
        OSError: The server doesn't answer, or answers with an error.
        ValueError: There is no login form, or the login was refused.
    """
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(cookies))
    address = f"{site.admin}login/?next=/admin/"
    form = browser.open(address, timeout=20).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
    if token is None:
        raise ValueError("there is no login form")
    fields = {"csrfmiddlewaretoken": token[1], "username": site.user, "password": site.password}
    answer = browser.open(address, urllib.parse.urlencode(fields).encode(), timeout=20)
    if "login" in answer.geturl():
        raise ValueError("the password was refused")
    return browser


def _opens(browser: urllib.request.OpenerDirector, address: str) -> bool:
    try:
        answer = browser.open(address, timeout=20)
    except urllib.error.HTTPError:
        return False
    return "login" not in answer.geturl()


def of_output(processes: list[Process]) -> Check:
    """Look for errors in what beat, camera and web server printed (the worker's failures are meant)."""
    lines = [f"[{process.name}] {line}" for process in processes if process.name != "worker" for line in process.errors]
    if lines:
        return Check(False, f"{len(lines)} errors were printed; the first is {lines[0]}")
    return Check(True, "no errors in the output of beat, camera and web server")


def status_line() -> str:
    """Return the state of the tables in one line."""
    results = dict(TaskMeta.objects.values_list("status").annotate(Count("pk")))
    counts = ", ".join(f"{number} {state}" for state, number in sorted(results.items()))
    runs = PeriodicTask.objects.filter(name=PERIODIC_NAME).values_list("total_run_count", flat=True).first()
    return (
        f"results: {counts or 'none'} · {PERIODIC_NAME} ran {runs or 0} times · "
        f"snapshots: {TaskState.objects.count()} tasks, {WorkerState.objects.count()} workers"
    )
