"""How the pages look: nothing sticks out, all can be read, on a desk and a phone, in light and dark; and pictures."""

from __future__ import annotations

import pytest

from tests.browser import looks
from tests.browser.conftest import WORKER
from tests.browser.pages import DESK, PHONE

pytestmark = [pytest.mark.integration, pytest.mark.browser, pytest.mark.long]

WINDOWS = {"light": (DESK, False), "dark": (DESK, True), "phone": (PHONE, False)}
LISTS = (
    *("overview/", "overview/?period=day", "overview/?period=week", "taskstate/", "taskmeta/", "tasksetmeta/"),
    *("chord/", "workerstate/", "periodictask/", "periodicrun/", "intervalschedule/", "crontabschedule/"),
    *("solarschedule/", "clockedschedule/"),
)
FORMS = (
    *("workerstate/add/", "periodictask/add/", "intervalschedule/add/", "crontabschedule/add/"),
    *("solarschedule/add/", "clockedschedule/add/"),
)
#: What a person reads on a usual screen without scrolling sideways.
WIDE = ("taskstate/", "taskmeta/", "workerstate/", "periodictask/")
MAX_PICTURE_BYTES = 200_000


@pytest.fixture(scope="module")
def busy(stack):
    """Pages of tasks in several states."""
    for number in range(14):
        stack.send("shop.tasks.add", number, number * number)
        if not number % 4:
            stack.send("shop.tasks.count_rows")
    failed = stack.send("shop.tasks.fail", "SKU-17")
    stack.send("shop.tasks.noop")
    stack.send("shop.tasks.sleepy", "nap", None, 12)
    later, again = stack.send("shop.tasks.add", 4, 5, countdown=3000), stack.send("shop.tasks.flaky")
    states = {failed: "FAILURE", later: "RECEIVED", again: "RETRY"}
    return {state: stack.task(task_id, state) for task_id, state in states.items()}


def flaws(browser):
    """Return what is wrong with the looks of the page that is open, by window."""
    found = {}
    for name, (size, is_dark) in WINDOWS.items():
        browser.be(size, is_dark)
        wrong = [*looks.sticking_out(browser), *looks.pale(browser)]
        if wrong:
            found[name] = wrong
    browser.be()
    return found


def test_lists_and_empty_forms_fit_and_can_be_read(admin, busy):
    found = {}
    for path in (*LISTS, *FORMS):
        admin.open(path)
        found[path] = flaws(admin)
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_pages_of_one_thing_fit_and_can_be_read(admin, stack, busy):
    worker, found = stack.worker(WORKER), {}
    ((result, run),) = stack.programs.rows(
        "SELECT (SELECT max(id) FROM celery_taskmeta), (SELECT max(id) FROM djcelery_periodicrun)"
    )
    others = (f"taskmeta/{result}/change/", f"periodicrun/{run}/change/", "intervalschedule/1/change/")
    for path in (*busy.values(), worker, worker.replace("change", "live"), stack.entry("count rows"), *others):
        admin.open(path)
        found[path] = flaws(admin)
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("path", "text", "actions"),
    [
        ("taskstate/?q=state:FAILURE", "shop.tasks.fail", ("revoke_tasks", "kill_tasks", "rate_limit_tasks")),
        ("taskstate/?q=state:FAILURE", "shop.tasks.fail", ("retry_tasks",)),
        ("workerstate/", WORKER, ("shutdown_nodes", "grow_pool", "add_consumer", "set_time_limit")),
        ("periodictask/", "hourly report", ("run_tasks",)),
    ],
    ids=["tasks", "retry", "workers", "schedule"],
)
def test_pages_that_ask_fit_and_can_be_read(admin, busy, path, text, actions):
    found = {}
    for action in actions:
        admin.open(path)
        admin.act(text, action)
        admin.find(".djcelery-buttons")
        found[action] = flaws(admin)
    assert {action: wrong for action, wrong in found.items() if wrong} == {}


def test_lists_are_read_without_scrolling_sideways_on_a_usual_screen(admin, busy):
    cut = {}
    for path in WIDE:
        admin.open(path)
        cut[path] = admin.run(
            "const box = document.querySelector('.results'); return box.scrollWidth - box.clientWidth"
        )
    assert cut == dict.fromkeys(WIDE, 0)


def test_pictures_for_the_manual(admin, stack, busy, pictures):
    admin.open("overview/")
    admin.see("Everything is all right.", "#djcelery-status", timeout_s=30)
    shots = (
        ("overview-light", "overview/", DESK, False, 1180),
        ("overview-dark", "overview/", DESK, True, 1180),
        ("overview-phone", "overview/", PHONE, False, None),
        ("tasks", "taskstate/", DESK, False, None),
        ("task", busy["FAILURE"], DESK, False, 1040),
        ("workers", "workerstate/", DESK, False, 420),
        ("schedule", "periodictask/", DESK, False, 720),
    )
    for name, path, size, is_dark, height in shots:
        admin.be(size, is_dark, height)
        admin.open(path)
        picture = pictures / f"{name}.png"
        admin.picture(picture)
        assert 5_000 < picture.stat().st_size < MAX_PICTURE_BYTES, name
